"""The unmodified Azure SDK against the emulator, with `verify_challenge_resource` on."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Final

import attrs
import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)

from fakes.loopback import Account, secret_client
from provider.emulator import running

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.loopback import Connect
    from provider.emulator import EmulatorClient, EmulatorConfig

TENANT: Final = "6f1c6a0e-0000-4000-8000-000000000001"


def kinds(emulator: EmulatorClient) -> list[tuple[str, int]]:
    """Return kind and status of every logged request."""
    return [(entry.kind, entry.status) for entry in emulator.request_log()]


def test_cold_read_takes_the_four_requests(emulator: EmulatorClient, connect: Connect) -> None:
    """A first read is challenge, discovery, token, read; the second is a read only."""
    client = connect()
    assert client.get_secret("db-password").value == "first"
    client.get_secret("db-password")
    assert kinds(emulator) == [
        ("challenge", 401),
        ("discovery", 200),
        ("token", 200),
        ("secret-get", 200),
        ("secret-get", 200),
    ]
    read = emulator.request_log("secret-get")[0]
    assert (read.vault, read.name, read.principal) == ("demo", "db-password", "app")


def test_default_api_version_is_served(connect: Connect) -> None:
    """The SDK's own default version works beside the pinned one."""
    assert connect(api_version="2026-04-01").get_secret("db-password").value == "first"


def test_set_secret_makes_the_latest_version(connect: Connect) -> None:
    """A set adds a version, which is then the latest; the older stays readable by its id."""
    client = connect()
    old = client.get_secret("db-password").properties.version
    made = client.set_secret("db-password", "second", content_type="text/plain", tags={"a": "b"})
    assert client.get_secret("db-password").value == "second"
    assert client.get_secret("db-password", old).value == "first"
    shown = client.get_secret("db-password", made.properties.version).properties
    assert (shown.content_type, shown.tags) == ("text/plain", {"a": "b"})
    assert str(shown.id).endswith(f"/secrets/db-password/{shown.version}")
    assert len(str(shown.version)) == 32


def test_versions_page_in_order_of_ids(connect: Connect) -> None:
    """Versions come in pages of 25, in the order of their random ids, across nextLinks."""
    client = connect()
    made = [client.set_secret("paged", str(number)).properties.version for number in range(30)]
    pages = client.list_properties_of_secret_versions("paged").by_page()
    listed = [[item.version for item in page] for page in pages]
    assert [len(page) for page in listed] == [25, 5]
    assert list(itertools.chain(*listed)) == sorted(str(version) for version in made)


def test_secrets_list_has_no_versions(connect: Connect) -> None:
    """The list of secrets shows each once, disabled ones too, without a version."""
    items = list(connect().list_properties_of_secrets(max_page_size=2))
    assert [item.name for item in items] == ["db-password", "expired", "sleeping"]
    assert [item.enabled for item in items] == [True, True, False]
    assert {item.version for item in items} == {None}


def test_disabled_secret_is_forbidden(connect: Connect) -> None:
    """A disabled secret is 403 with the inner code, and served again once enabled."""
    client = connect()
    with pytest.raises(HttpResponseError) as caught:
        client.get_secret("sleeping")
    assert caught.value.status_code == 403
    assert caught.value.error is not None
    assert caught.value.error.code == "Forbidden"
    assert caught.value.error.innererror == {"code": "SecretDisabled"}
    client.update_secret_properties("sleeping", enabled=True)
    assert client.get_secret("sleeping").value == "hidden"


def test_expired_secret_is_served(connect: Connect) -> None:
    """Both nbf and exp are informational for a read."""
    secret = connect().get_secret("expired")
    assert secret.value == "still served"
    assert secret.properties.expires_on is not None
    assert secret.properties.expires_on.year == 2000
    assert secret.properties.not_before is not None
    assert secret.properties.not_before.year == 2100


def test_missing_secret_and_version_are_404(connect: Connect) -> None:
    """A missing secret is named; a missing version is named as name/version."""
    client = connect()
    with pytest.raises(ResourceNotFoundError, match=r"SecretNotFound.*\(name/id\) nothing was"):
        client.get_secret("nothing")
    with pytest.raises(ResourceNotFoundError, match=r"\(name/id\) db-password/latest was"):
        client.get_secret("db-password", "latest")


def test_deleted_secret_is_404_until_recovered(connect: Connect) -> None:
    """A soft-deleted secret reads as missing, blocks its name, and can be recovered."""
    client = connect()
    deleted = client.begin_delete_secret("db-password").result()
    assert deleted.recovery_id is not None
    with pytest.raises(ResourceNotFoundError, match="recently deleted this secret"):
        client.get_secret("db-password")
    with pytest.raises(ResourceExistsError, match="deleted but recoverable") as caught:
        client.set_secret("db-password", "again")
    assert caught.value.error is not None
    assert caught.value.error.innererror == {"code": "ObjectIsDeletedButRecoverable"}
    client.begin_recover_deleted_secret("db-password").wait()
    assert client.get_secret("db-password").value == "first"


def test_purged_name_is_free_again(connect: Connect) -> None:
    """After a purge the name starts anew with one version."""
    client = connect()
    client.begin_delete_secret("db-password").wait()
    assert [item.name for item in client.list_deleted_secrets()] == ["db-password"]
    client.purge_deleted_secret("db-password")
    with pytest.raises(ResourceNotFoundError, match="Deleted Secret not found: db-password"):
        client.get_deleted_secret("db-password")
    client.set_secret("db-password", "anew")
    assert len(list(client.list_properties_of_secret_versions("db-password"))) == 1


def test_access_policy_holds_per_principal(connect: Connect) -> None:
    """Without the permission of the operation the answer is 403 AccessDenied naming both."""
    assert connect("reader").get_secret("db-password").value == "first"
    for client in (connect("stranger"), connect("reader")):
        with pytest.raises(HttpResponseError) as caught:
            client.set_secret("db-password", "mine")
        assert caught.value.status_code == 403
        assert caught.value.error is not None
        assert caught.value.error.innererror == {"code": "AccessDenied"}
        assert "does not have secrets set permission on key vault 'demo" in caught.value.message


def test_grant_and_revoke_act_at_once(emulator: EmulatorClient, connect: Connect) -> None:
    """Access policies change under a client that holds its token."""
    client = connect("stranger")
    emulator.grant("stranger", "demo", ["get"])
    assert client.get_secret("db-password").value == "first"
    emulator.revoke("client-stranger", "demo")
    with pytest.raises(HttpResponseError, match="secrets get permission"):
        client.get_secret("db-password")


def test_vaults_answer_to_their_host_names(connect: Connect) -> None:
    """Each vault has its own content under its own host name."""
    assert connect(vault="second").get_secret("db-password").value == "of the second vault"
    foreign = connect("foreigner", vault="abroad")
    assert foreign.get_secret("db-password").value == "of the other tenant"


def test_vault_of_another_tenant_is_refused(connect: Connect) -> None:
    """The challenge names the vault's tenant, which the credential does not accept."""
    with pytest.raises(ClientAuthenticationError, match="not configured to acquire tokens"):
        connect(vault="abroad").get_secret("db-password")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param({"client_secret": "wrong"}, "AADSTS7000215", id="secret"),
        pytest.param({"client_id": "nobody"}, "AADSTS700016", id="client-id"),
        pytest.param({"client_id": "client-foreigner"}, "AADSTS700016", id="foreign-client"),
    ],
)
def test_wrong_account_cannot_sign_in(
    emulator: EmulatorClient, connect: Connect, change: dict[str, str], text: str
) -> None:
    """A wrong secret or client id fails at Entra ID, with its reason."""
    right = Account(tenant=TENANT, client_id="client-app", client_secret="password-of-app")
    with pytest.raises(ClientAuthenticationError, match=text):
        connect(attrs.evolve(right, **change)).get_secret("db-password")
    assert ("secret-get", 200) not in kinds(emulator)


def test_throttled_read_obeys_retry_after(emulator: EmulatorClient, connect: Connect) -> None:
    """A 429 with Retry-After delays the SDK's retry; the fault is spent after its count."""
    emulator.fault("throttle", vault="demo", retry_after=0)
    assert connect(retries=2).get_secret("db-password").value == "first"
    assert [(entry.status, entry.fault) for entry in emulator.request_log("secret-get")] == [
        (429, "throttle"),
        (200, None),
    ]


def test_client_outlives_a_restart(config: EmulatorConfig, tmp_path: Path) -> None:
    """A client with its token goes on at a successor on the same port, with its new authority."""
    app = config.principals["app"]
    account = Account(tenant=TENANT, client_id=app.client_id, client_secret=app.client_secret)
    with contextlib.ExitStack() as stack:
        with running(config, tmp_path) as emulator:
            port = emulator.port
            client = secret_client(
                emulator, account, stack, vault="demo", api_version="7.4", retries=1
            )
            client.get_secret("db-password")
        with running(config, tmp_path, port) as emulator:
            assert client.get_secret("db-password").value == "first"
            assert kinds(emulator) == [("secret-get", 200)]

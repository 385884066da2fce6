"""What a mount request leads to."""

from __future__ import annotations

import logging

import pytest

from fakes.keyvault import CLOUD, FakeClouds, FakeVaults, attributes, objects_text
from provider.budget import Budget
from provider.errors import InvalidRequest, NotFound, PermissionDenied, ProviderError, Unsupported
from provider.model import MountedFile, SecretBytes, ServicePrincipal, Vault
from provider.mounts import Mounter, MountRequest

CANARY = "canary-4e5f"
SECRETS = {"clientid": SecretBytes("app"), "clientsecret": SecretBytes(CANARY)}


def mount(
    vaults: FakeVaults | None = None,
    clouds: FakeClouds | None = None,
    secrets: dict[str, SecretBytes] | None = SECRETS,
    /,
    **changes: str | None,
) -> tuple[MountedFile, ...]:
    """Mount with a valid request and some changes to it."""
    mounter = Mounter(
        clouds=clouds or FakeClouds(), vaults=vaults or FakeVaults(values={"db": "v"})
    )
    request = MountRequest(attributes=attributes(**changes), secrets=secrets, permission=0o640)
    return mounter.mount(request, Budget(10))


def test_a_mount_reads_as_the_identity_it_names() -> None:
    """Vault, cloud and identity are those of the request."""
    vaults, clouds = FakeVaults(values={"db": "v"}), FakeClouds()
    mount(vaults, clouds, cloudName="AzureStackCloud", cloudEnvFileName="/clouds/c.json")
    assert clouds.asked == [("AzureStackCloud", "/clouds/c.json")]
    assert vaults.opened == [
        (
            Vault(name="kv-shop", cloud=CLOUD),
            ServicePrincipal(
                tenant_id="tenant", client_id="app", client_secret=SecretBytes(CANARY)
            ),
        )
    ]


def test_files_come_in_the_order_of_their_objects() -> None:
    """Every object is a file, with the request's mode unless it has its own."""
    vaults = FakeVaults(values={"db": "v", "key": "00ff"})
    files = mount(
        vaults,
        objects=objects_text(
            {"objectName": "key", "objectType": "secret", "objectEncoding": "hex"},
            {
                "objectName": "db",
                "objectType": "secret",
                "objectAlias": "d/pw",
                "objectVersion": "v7",
                "filePermission": "0400",
            },
        ),
    )
    assert [(f.path, f.content.reveal(), f.mode) for f in files] == [
        ("key", b"\x00\xff", 0o640),
        ("d/pw", b"v", 0o400),
    ]
    assert [(f.object_id, f.version) for f in files] == [
        ("secret/key", "current"),
        ("secret/db", "v7"),
    ]


def test_one_secret_in_two_files_is_read_once() -> None:
    """Aliases are ours, the vault does not see them."""
    vaults = FakeVaults(values={"db": "v"})
    same = {"objectName": "db", "objectType": "secret"}
    files = mount(vaults, objects=objects_text(same, same | {"objectAlias": "copy"}))
    assert [file.path for file in files] == ["db", "copy"]
    assert len(vaults.reads) == 1


def test_a_class_without_objects_is_answered_empty(caplog: pytest.LogCaptureFixture) -> None:
    """The reference answers so too, and drivers refuse it; the log says why."""
    vaults = FakeVaults()
    assert mount(vaults, objects="array:", keyvaultName="x") == ()
    assert vaults.opened == []
    assert "the class asks for no object" in caplog.text


def test_errors_follow_the_order_of_the_reference() -> None:
    """With everything wrong, mending one mistake after the other shows them in its order."""
    broken = FakeClouds(failure=InvalidRequest("cloudName X is not valid"))
    bad = objects_text({"objectName": "db", "objectType": "secret", "objectFormat": "x"})
    key = objects_text({"objectName": "db", "objectType": "key"})
    steps: list[tuple[str, FakeClouds, dict[str, SecretBytes] | None, dict[str, str | None]]] = [
        ("tenantId is not provided", broken, None, {"tenantID": None}),
        ("cloudName X is not valid", broken, None, {}),
        ("nodePublishSecretRef secret is not set", FakeClouds(), None, {"objects": None}),
        ("objects is not set", FakeClouds(), SECRETS, {"objects": None}),
        ("failed to yaml unmarshal", FakeClouds(), SECRETS, {"objects": "x"}),
        ("invalid objectFormat", FakeClouds(), SECRETS, {"objects": bad, "keyvaultName": "x"}),
        ("Invalid vault name", FakeClouds(), SECRETS, {"objects": key, "keyvaultName": "x"}),
        ("objectType key is not supported", FakeClouds(), SECRETS, {"objects": key}),
    ]
    for message, clouds, secrets, changes in steps:
        with pytest.raises(InvalidRequest, match=message):
            mount(None, clouds, secrets, **changes)


def test_unsupported_objects_name_themselves() -> None:
    """The error names the object and the field, before anything is read."""
    vaults = FakeVaults(values={"db": "v"})
    objects = objects_text(
        {"objectName": "db", "objectType": "secret"}, {"objectName": "k", "objectType": "key"}
    )
    with pytest.raises(Unsupported) as caught:
        mount(vaults, objects=objects)
    assert str(caught.value).startswith(
        "failed to get objectType:key, objectName:k, objectVersion:: objectType key is not"
    )
    assert vaults.reads == []


def test_a_failing_secret_fails_the_mount() -> None:
    """There is no partial answer."""
    objects = objects_text(
        {"objectName": "db", "objectType": "secret"}, {"objectName": "no", "objectType": "secret"}
    )
    with pytest.raises(NotFound, match="objectName:no, objectVersion:: SecretNotFound no"):
        mount(objects=objects)


def test_undecodable_content_keeps_the_known_text() -> None:
    """The reference's text stays in front, the object that it forgot is named behind."""
    objects = objects_text({"objectName": "db", "objectType": "secret", "objectEncoding": "base64"})
    with pytest.raises(InvalidRequest) as caught:
        mount(FakeVaults(values={"db": "!"}), objects=objects)
    assert caught.value.message == (
        "illegal base64 data at input byte 0 (objectType:secret, objectName:db, objectVersion:)"
    )


def test_a_client_secret_never_leaves_in_an_error() -> None:
    """Even if a layer below worded an error carelessly."""
    vaults = FakeVaults()

    def leak(_: object) -> None:
        message = f"refused {CANARY}"
        raise PermissionDenied(message, remedy=f"forget {CANARY}")

    vaults.before_read = leak
    with pytest.raises(ProviderError) as caught:
        mount(vaults)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None


def test_warnings_are_logged_once_for_each_pod(caplog: pytest.LogCaptureFixture) -> None:
    """A refresh each minute does not repeat them."""
    mounter = Mounter(clouds=FakeClouds(), vaults=FakeVaults(values={"db": "v"}))
    for pod in ("one", "two", "one"):
        given = attributes(clientId="x", **{"csi.storage.k8s.io/pod.name": pod})
        mounter.mount(MountRequest(attributes=given, secrets=SECRETS, permission=0o644), Budget(10))
    warned = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert [getattr(record, "pod", "") for record in warned] == ["one", "two"]
    assert 'did you mean "clientID"?' in warned[0].getMessage()


def test_a_request_does_not_print_its_tokens() -> None:
    """Service account tokens are attributes, and a request may end up in a trace."""
    given = attributes(**{"csi.storage.k8s.io/serviceAccount.tokens": CANARY})
    assert CANARY not in repr(MountRequest(attributes=given, secrets=SECRETS, permission=0))

"""Class parameters: required ones, precedence, order of checks, near misses."""

from __future__ import annotations

import pytest

from fakes.keyvault import attributes
from provider.errors import InvalidRequest
from provider.parameters import check_vault_name, parse_parameters

POD = {"csi.storage.k8s.io/pod.name": "p", "csi.storage.k8s.io/pod.namespace": "n"}
VAULT = POD | {"keyvaultName": "kv-test"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param({}, "pod name is not provided", id="nothing"),
        pytest.param(
            {"csi.storage.k8s.io/pod.name": "p"}, "pod namespace is not provided", id="pod-name"
        ),
        pytest.param(POD, "keyvaultName is not provided", id="pod"),
        pytest.param(POD | {"keyvaultName": " \t"}, "keyvaultName is not provided", id="blank"),
        pytest.param(VAULT, "tenantId is not provided", id="vault"),
        pytest.param(VAULT | {"tenantid": "t"}, "tenantId is not provided", id="wrong-case"),
    ],
)
def test_required_parameters_are_demanded_in_order(given: dict[str, str], message: str) -> None:
    """Of several missing ones the reference's first is reported, and a remedy."""
    with pytest.raises(InvalidRequest) as caught:
        parse_parameters(given)
    assert caught.value.message == message
    assert caught.value.remedy


@pytest.mark.parametrize("key", ["usePodIdentity", "useVMManagedIdentity", "useAzureTokenProxy"])
def test_switches_are_checked_before_the_vault(key: str) -> None:
    """A broken switch is reported although keyvaultName is missing too."""
    with pytest.raises(InvalidRequest) as caught:
        parse_parameters(POD | {key: "tru"})
    assert str(caught.value) == (
        f'failed to parse {key} flag, error: strconv.ParseBool: parsing "tru": invalid syntax'
    )


def test_two_identity_modes_exclude_each_other() -> None:
    """The reference's sentence names all three."""
    with pytest.raises(InvalidRequest, match="only one identity mode can be enabled at a time: "):
        parse_parameters(POD | {"usePodIdentity": "true", "useAzureTokenProxy": " 1 "})


def test_every_value_is_trimmed() -> None:
    """White space around a value has no meaning."""
    parameters = parse_parameters(
        attributes(
            keyvaultName=" kv-shop\n",
            cloudName="\tAzureChinaCloud ",
            cloudEnvFileName=" /a ",
            clientID=" c ",
            userAssignedIdentityID=" u ",
            useVMManagedIdentity=" t ",
        )
    )
    assert parameters.vault_name == "kv-shop"
    assert (parameters.cloud_name, parameters.cloud_file) == ("AzureChinaCloud", "/a")
    assert (parameters.client_id, parameters.user_assigned_identity_id) == ("c", "u")
    assert parameters.mode == "VMManagedIdentity"


def test_the_newer_spelling_of_the_tenant_wins() -> None:
    """`tenantID` has precedence unless it is blank."""
    assert parse_parameters(attributes(tenantID="a", tenantId="b")).tenant_id == "a"
    assert parse_parameters(attributes(tenantID=" ", tenantId="b")).tenant_id == "b"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("userAssignedIdentityId", 'did you mean "userAssignedIdentityID"?'),
        ("clientId", 'did you mean "clientID"?'),
        ("keyVaultName", 'did you mean "keyvaultName"?'),
        ("tenantid", 'did you mean "tenantID"?'),
        ("cloud_name", 'did you mean "cloudName"?'),
        ("useVMManagedIdentiy", 'did you mean "useVMManagedIdentity"?'),
        ("objectFormat", "it is a field of each object in objects"),
    ],
)
def test_near_misses_are_warned_about(key: str, hint: str) -> None:
    """A key that only looks right is named, with the right spelling."""
    (warning,) = parse_parameters(attributes(**{key: "x"})).warnings
    assert key in warning
    assert warning.endswith(hint)


@pytest.mark.parametrize(
    "key", ["resourceGroup", "csi.storage.k8s.io/ephemeral", "akvfs/filesystem", "x" * 10_000]
)
def test_unrelated_keys_are_ignored_in_silence(key: str) -> None:
    """What resembles nothing of ours is somebody else's."""
    assert parse_parameters(attributes(**{key: "x"})).warnings == ()


def test_an_identity_without_its_switch_is_warned_about() -> None:
    """A managed identity that nothing uses is a mistake."""
    (warning,) = parse_parameters(attributes(userAssignedIdentityID="id")).warnings
    assert "has no effect without useVMManagedIdentity" in warning


def test_the_number_of_warnings_is_bounded() -> None:
    """A class full of nonsense does not fill the log."""
    many = {f"tenant{'_' * i}ID": "x" for i in range(1, 500)}
    assert len(parse_parameters(attributes(**many)).warnings) == 20


@pytest.mark.parametrize("name", ["kv", "a" * 25, "", "kv_test", "kv.evil", "kv/x", "kv\n", "ké"])
def test_a_vault_name_cannot_shape_a_host(name: str) -> None:
    """Only letters, digits and hyphens, 3 to 24 of them, come in front of the cloud's domain."""
    with pytest.raises(InvalidRequest, match="failed to get vault: Invalid vault name: "):
        check_vault_name(name)


def test_no_secret_shows_in_the_record() -> None:
    """Service account tokens are parameters too, and stay out of a repr."""
    token = '{"api://AzureADTokenExchange":{"token":"canary-77aa"}}'
    given = attributes(**{"csi.storage.k8s.io/serviceAccount.tokens": token})
    assert "canary-77aa" not in repr(parse_parameters(given))

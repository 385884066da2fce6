"""The identity that a request carries."""

from __future__ import annotations

import pytest

from fakes.keyvault import attributes
from provider.errors import InvalidRequest, Unsupported
from provider.identity import select_identity
from provider.model import SecretBytes, ServicePrincipal
from provider.parameters import parse_parameters

SECRETS = {"ClientID": SecretBytes("app"), "CLIENTSECRET": SecretBytes(" secret\n")}
TOKENS = "csi.storage.k8s.io/serviceAccount.tokens"


def test_a_service_principal_is_taken_as_it_is() -> None:
    """Keys match in any case, values are not trimmed."""
    identity = select_identity(parse_parameters(attributes()), SECRETS)
    assert identity == ServicePrincipal(
        tenant_id="tenant", client_id="app", client_secret=SecretBytes(" secret\n")
    )


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        (None, "failed to get credentials, nodePublishSecretRef secret is not set"),
        ({}, "could not find clientid in secrets"),
        ({"clientid": SecretBytes("a")}, "could not find clientsecret in secrets"),
        (SECRETS | {"ClientID": SecretBytes("")}, "could not find clientid in secrets"),
    ],
)
def test_an_incomplete_secret_is_refused(
    secrets: dict[str, SecretBytes] | None, message: str
) -> None:
    """The reference's words behind the mode's prefix, and which keys are needed."""
    with pytest.raises(InvalidRequest) as caught:
        select_identity(parse_parameters(attributes()), secrets)
    assert caught.value.message == f"failed to build auth config for mode None: {message}"
    assert "clientid and clientsecret" in caught.value.remedy


@pytest.mark.parametrize(
    ("switch", "mode"),
    [
        ("usePodIdentity", "PodIdentity"),
        ("useVMManagedIdentity", "VMManagedIdentity"),
        ("useAzureTokenProxy", "AzureTokenProxy"),
    ],
)
def test_other_modes_are_said_to_be_unsupported(switch: str, mode: str) -> None:
    """A class is never mounted with another identity than it names, even if one is there."""
    with pytest.raises(Unsupported) as caught:
        select_identity(parse_parameters(attributes(**{switch: "true"})), SECRETS)
    assert caught.value.message == (
        f"failed to build auth config for mode {mode}: {switch} is not supported yet"
    )


def test_workload_identity_is_unsupported() -> None:
    """With clientID and tokens the reference would not use the Secret."""
    given = attributes(clientID="app", **{TOKENS: '{"aud":{"token":"canary-1b"}}'})
    with pytest.raises(Unsupported, match="is not supported yet") as caught:
        select_identity(parse_parameters(given), SECRETS)
    assert "canary-1b" not in str(caught.value)


def test_workload_identity_without_tokens_is_told() -> None:
    """The reference's error for a driver that requests no tokens."""
    with pytest.raises(InvalidRequest) as caught:
        select_identity(parse_parameters(attributes(clientID="app")), SECRETS)
    assert caught.value.message == (
        "failed to build auth config for mode None: failed to parse workload identity tokens, "
        "error: service account tokens not found"
    )

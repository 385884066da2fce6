"""Who asks the vault: the identity that a mount request carries. Pure.

This version proves one kind of identity, a service principal with a client secret from the
node-publish Secret. A class that asks for another one is told so; it is never mounted with a
different identity than the one that it names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from provider.errors import InvalidRequest, Prefixed, Unsupported
from provider.golang import trim_space
from provider.model import SecretBytes, ServicePrincipal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from provider.parameters import Mode, Parameters

_SWITCH_OF: Final[Mapping[Mode, str]] = {
    "PodIdentity": "usePodIdentity",
    "VMManagedIdentity": "useVMManagedIdentity",
    "AzureTokenProxy": "useAzureTokenProxy",
}
_REMEDY: Final = (
    "use a service principal: keys clientid and clientsecret in the Secret that "
    "nodePublishSecretRef names"
)

_NO_TOKENS: Final = (
    "failed to parse workload identity tokens, error: service account tokens not found"
)


def select_identity(
    parameters: Parameters, secrets: Mapping[str, SecretBytes] | None
) -> ServicePrincipal:
    """Return the identity that a request wants to be read with.

    Raises:
        InvalidRequest: its Secret is missing or incomplete.
        Unsupported: it wants a kind of identity that this version cannot prove.
    """
    with Prefixed(f"failed to build auth config for mode {parameters.mode}: "):
        if switch := _SWITCH_OF.get(parameters.mode):
            message = f"{switch} is not supported yet"
            raise Unsupported(message, remedy=_REMEDY)
        if parameters.client_id:
            raise _workload_identity(parameters)
        client_id, client_secret = service_principal(secrets)
        return ServicePrincipal(
            tenant_id=parameters.tenant_id, client_id=client_id, client_secret=client_secret
        )


def service_principal(secrets: Mapping[str, SecretBytes] | None) -> tuple[str, SecretBytes]:
    """Return client id and client secret of a node-publish Secret, neither of them trimmed.

    Raises:
        InvalidRequest: there is no Secret, or a key is missing.
    """
    if secrets is None:
        message = "failed to get credentials, nodePublishSecretRef secret is not set"
        raise InvalidRequest(message, remedy=_REMEDY)
    folded = {key.lower(): value for key, value in secrets.items()}
    client_id = folded.get("clientid", SecretBytes(b""))
    client_secret = folded.get("clientsecret", SecretBytes(b""))
    for key, value in (("clientid", client_id), ("clientsecret", client_secret)):
        if not value:
            message = f"could not find {key} in secrets"
            raise InvalidRequest(message, remedy=_REMEDY)
    return client_id.reveal().decode(), client_secret


def _workload_identity(parameters: Parameters) -> InvalidRequest:
    """Say what is wrong with a request for workload identity."""
    if not trim_space(parameters.tokens.reveal().decode()):
        message = (
            "failed to parse workload identity tokens, error: service account tokens not found"
        )
        remedy = "clientID asks for workload identity, which needs tokenRequests in the CSIDriver"
        return InvalidRequest(message, remedy=remedy)
    message = "clientID (workload identity) is not supported yet"
    return Unsupported(message, remedy=f"remove clientID and {_REMEDY}")

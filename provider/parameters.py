"""Class parameters and volume context as one frozen record. Pure.

The names, their precedence, the order of the checks and the texts are the reference's. It ignores a
key that it does not know; this one does too, but says so when the key is a near miss of a real one,
because `userAssignedIdentityId` and `tenantid` have cost people days.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final, Literal

import attrs

from provider.errors import InvalidRequest, Prefixed
from provider.golang import parse_bool, quote, trim_space
from provider.model import SecretBytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Mode = Literal["None", "PodIdentity", "VMManagedIdentity", "AzureTokenProxy"]

POD_NAME: Final = "csi.storage.k8s.io/pod.name"
POD_NAMESPACE: Final = "csi.storage.k8s.io/pod.namespace"
TOKENS: Final = "csi.storage.k8s.io/serviceAccount.tokens"
OBJECTS: Final = "objects"

_SWITCHES: Final[Mapping[str, Mode]] = {
    "usePodIdentity": "PodIdentity",
    "useVMManagedIdentity": "VMManagedIdentity",
    "useAzureTokenProxy": "AzureTokenProxy",
}
_KNOWN: Final = (
    "keyvaultName",
    "tenantID",
    "tenantId",
    "cloudName",
    "cloudEnvFileName",
    *_SWITCHES,
    "userAssignedIdentityID",
    "clientID",
    OBJECTS,
)
# Fields of an object, which people also write beside `objects`, where nobody reads them.
_OBJECT_FIELDS: Final = frozenset(
    {
        "objectName",
        "objectAlias",
        "objectType",
        "objectVersion",
        "objectVersionHistory",
        "objectFormat",
        "objectEncoding",
        "filePermission",
    }
)
_CLOSE: Final = 0.85  # difflib's ratio; `keyVaultName`, `clientId` and one wrong letter are above
_LONGEST_KEY: Final = 64  # difflib is quadratic
_MOST_WARNINGS: Final = 20
_VAULT_NAME: Final = re.compile(r"[-A-Za-z0-9]+")
_VAULT_NAME_LENGTH: Final = range(3, 25)  # bytes


@attrs.frozen(kw_only=True)
class Parameters:
    """What a mount request asks for, checked as far as that needs no file and no network.

    Attributes:
        pod_name: The pod that mounts.
        pod_namespace: Its namespace.
        vault_name: The vault; `check_vault_name` comes later, as in the reference.
        tenant_id: The tenant in which the identity is proved.
        cloud_name: Empty for the provider's own default.
        cloud_file: Path of a custom cloud's description, empty without one.
        mode: The identity mode that a switch names, "None" without one.
        client_id: With it, workload identity is wanted.
        user_assigned_identity_id: Which managed identity.
        tokens: The service account tokens of the pod, as the driver sent them.
        objects: The YAML text of the objects.
        warnings: What the author of the class should know, a sentence each.
    """

    pod_name: str
    pod_namespace: str
    vault_name: str
    tenant_id: str
    cloud_name: str
    cloud_file: str
    mode: Mode
    client_id: str
    user_assigned_identity_id: str
    tokens: SecretBytes
    objects: str
    warnings: tuple[str, ...]


def parse_parameters(attributes: Mapping[str, str]) -> Parameters:
    """Read the attributes of a mount request.

    Raises:
        InvalidRequest: a required one is missing, or one has an impossible value.
    """
    pod_name = _required(attributes, POD_NAME, "pod name is not provided")
    pod_namespace = _required(attributes, POD_NAMESPACE, "pod namespace is not provided")
    mode = _mode(attributes)
    vault_name = _required(attributes, "keyvaultName", "keyvaultName is not provided")
    tenant_id = tenant_of(attributes)
    if not tenant_id:
        message = "tenantId is not provided"
        raise InvalidRequest(message, remedy="set the parameter tenantID")
    return Parameters(
        pod_name=pod_name,
        pod_namespace=pod_namespace,
        vault_name=vault_name,
        tenant_id=tenant_id,
        cloud_name=_value(attributes, "cloudName"),
        cloud_file=_value(attributes, "cloudEnvFileName"),
        mode=mode,
        client_id=_value(attributes, "clientID"),
        user_assigned_identity_id=_value(attributes, "userAssignedIdentityID"),
        tokens=SecretBytes(attributes.get(TOKENS, "")),
        objects=_value(attributes, OBJECTS),
        warnings=tuple(_warnings(attributes)),
    )


def tenant_of(attributes: Mapping[str, str]) -> str:
    """Return the tenant: `tenantID`, or the older `tenantId` where that is blank."""
    return _value(attributes, "tenantID") or _value(attributes, "tenantId")


def parse_switch(text: str) -> bool:
    """Read a boolean parameter; blank is false.

    Raises:
        InvalidRequest: not one of Go's spellings.
    """
    trimmed = trim_space(text)
    return parse_bool(trimmed) if trimmed else False


def check_vault_name(name: str) -> None:
    """Check that a vault's name can be put in front of the cloud's domain and nothing else.

    Raises:
        InvalidRequest: too short, too long, or with other characters.
    """
    with Prefixed("failed to get vault: "):
        if len(name.encode()) not in _VAULT_NAME_LENGTH:
            message = f"Invalid vault name: {quote(name)}, must be between 3 and 24 chars"
            raise InvalidRequest(message, remedy="correct the parameter keyvaultName")
        if not _VAULT_NAME.fullmatch(name):
            message = f"Invalid vault name: {quote(name)}, must match [-a-zA-Z0-9]{{3,24}}"
            raise InvalidRequest(message, remedy="correct the parameter keyvaultName")


def _value(attributes: Mapping[str, str], key: str) -> str:
    """Return a trimmed value, empty for a missing one."""
    return trim_space(attributes.get(key, ""))


def _required(attributes: Mapping[str, str], key: str, message: str) -> str:
    """Return a value that may not be blank."""
    value = _value(attributes, key)
    if value:
        return value
    driver_sets = key.startswith("csi.storage.k8s.io/")
    remedy = (
        f"the driver sets {key}: podInfoOnMount must be true in its CSIDriver"
        if driver_sets
        else f"set the parameter {key}"
    )
    raise InvalidRequest(message, remedy=remedy)


def _mode(attributes: Mapping[str, str]) -> Mode:
    """Return the identity mode that the switches choose."""
    chosen: list[Mode] = []
    for key, mode in _SWITCHES.items():
        with Prefixed(f"failed to parse {key} flag, error: "):
            if parse_switch(attributes.get(key, "")):
                chosen.append(mode)
    if len(chosen) > 1:
        message = (
            "only one identity mode can be enabled at a time: "
            "usePodIdentity, useVMManagedIdentity, or useAzureTokenProxy"
        )
        raise InvalidRequest(message)
    return chosen[0] if chosen else "None"


def _warnings(attributes: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each key that looks like a mistake."""
    unknown = sorted(key for key in attributes if key not in _KNOWN and "/" not in key)
    for key in unknown[:_MOST_WARNINGS]:
        shown = quote(key[:_LONGEST_KEY])
        if key in _OBJECT_FIELDS:
            yield f"parameter {shown} has no effect here: it is a field of each object in objects"
        elif near := _near_miss(key):
            yield f"parameter {shown} is not known and has no effect, did you mean {quote(near)}?"
    if attributes.get("userAssignedIdentityID") and not attributes.get("useVMManagedIdentity"):
        yield "parameter userAssignedIdentityID has no effect without useVMManagedIdentity"


def _near_miss(key: str) -> str | None:
    """Return the known key that an unknown one was meant to be."""
    folded = {_folded(known): known for known in reversed(_KNOWN)}
    if same := folded.get(_folded(key)):
        return same
    close = difflib.get_close_matches(_folded(key)[:_LONGEST_KEY], folded, n=1, cutoff=_CLOSE)
    return folded[close[0]] if close else None


def _folded(key: str) -> str:
    """Drop what people get wrong: case and separators."""
    return re.sub(r"[-_\s]", "", key).lower()

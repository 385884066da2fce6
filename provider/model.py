"""The values that travel between the modules: frozen, and unable to print a secret."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn, final

import attrs
from typing_extensions import override


@final
class SecretBytes:
    """Bytes that must not be printed, logged or pickled.

    Every way to turn it into text gives `<secret 12 bytes>`. `reveal()` is the only door; its
    callers are few and found by name.

    Args:
        content: The secret, as bytes or as text that is then held as UTF-8.
    """

    __slots__ = ("_content",)

    def __init__(self, content: bytes | str) -> None:
        self._content = content.encode() if isinstance(content, str) else bytes(content)

    def reveal(self) -> bytes:
        """Return the bytes themselves."""
        return self._content

    def __len__(self) -> int:
        return len(self._content)

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretBytes):
            return NotImplemented
        return hmac.compare_digest(self._content, other._content)

    @override
    def __hash__(self) -> int:
        message = "a secret is not a key: its hash would outlive it in tables"
        raise TypeError(message)

    @override
    def __repr__(self) -> str:
        return f"<secret {len(self._content)} bytes>"

    @override
    def __format__(self, format_spec: str) -> str:
        return repr(self)

    @override
    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        message = "a secret is not pickled or copied"
        raise TypeError(message)


@attrs.frozen(kw_only=True)
class ServicePrincipal:
    """Who asks: an application of a tenant, with a client secret."""

    tenant_id: str
    client_id: str
    client_secret: SecretBytes


@attrs.frozen(kw_only=True)
class Cloud:
    """Where a cloud's Entra ID and vaults are.

    Attributes:
        name: As the reference calls it.
        authority: Base URL of Entra ID (or AD FS), https.
        vault_suffix: What follows the vault's name in its host name; may carry a port.
        custom: Described by a file, so unknown to Microsoft's public discovery service.
    """

    name: str
    authority: str
    vault_suffix: str
    custom: bool = False


@attrs.frozen(kw_only=True)
class Vault:
    """One vault of a cloud. Its name is checked before one of these is made."""

    name: str
    cloud: Cloud

    @property
    def host(self) -> str:
        """Return the host, with the port where the cloud's suffix has one."""
        return f"{self.name}.{self.cloud.vault_suffix}"

    @property
    def url(self) -> str:
        """Return the base URL: plain concatenation, as the reference builds it."""
        return f"https://{self.host}/"


@attrs.frozen(kw_only=True)
class SecretBundle:
    """What a vault answered for one secret; None where it left a field out.

    Attributes:
        value: The text of the secret.
        object_id: URL of the version that was read.
        content_type: What its author said it is.
        key_id: Set for the secret behind a certificate, and only there.
    """

    value: SecretBytes | None
    object_id: str | None
    content_type: str | None = None
    key_id: str | None = None


@attrs.frozen(kw_only=True)
class MountedFile:
    """One file of the answer."""

    path: str
    content: SecretBytes
    mode: int
    object_id: str
    version: str

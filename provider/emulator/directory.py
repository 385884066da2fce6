"""Entra ID's part: principals, and the tokens that prove them. Synchronous, no I/O.

Tokens are JSON Web Tokens, as the service's. The key that signs a principal's tokens is derived
from its client secret, so they outlive a restart of the emulator as real ones outlive a restart
of Key Vault, and nothing has to be kept on disk. Who knows the secret could forge tokens of that
one principal, which he can have for the asking.
"""

from __future__ import annotations

import hmac
import uuid
from typing import TYPE_CHECKING, Any

import attrs
import jwt

if TYPE_CHECKING:
    from collections.abc import Callable

    from provider.emulator.config import EmulatorConfig

_ALGORITHM = "HS256"
_KEY_LABEL = b"provider.emulator token key"


@attrs.frozen(kw_only=True)
class Principal:
    """A service principal."""

    name: str
    client_id: str
    tenant: str
    client_secret: str = attrs.field(repr=False)

    @property
    def object_id(self) -> str:
        """The principal's object id: made up, but always the same."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.tenant}/{self.client_id}"))

    def token_key(self) -> bytes:
        """Return the key that signs this principal's tokens."""
        return hmac.digest(self.client_secret.encode(), _KEY_LABEL, "sha256")


class TokenRejected(Exception):
    """A token does not prove anything here; the message is the vault's answer."""


class Directory:
    """All tenants with their principals."""

    def __init__(
        self, config: EmulatorConfig, issuer_base: str, clock: Callable[[], float]
    ) -> None:
        self._issuer_base = issuer_base
        self._clock = clock
        self.token_lifetime = config.token_lifetime
        self.principals = {
            name: Principal(
                name=name,
                client_id=entry.client_id.lower(),
                tenant=(entry.tenant or config.tenant).lower(),
                client_secret=entry.client_secret,
            )
            for name, entry in config.principals.items()
        }
        self._by_client_id = {entry.client_id: entry for entry in self.principals.values()}
        self.tenants = {
            (tenant or config.tenant).lower()
            for tenant in (
                None,
                *(entry.tenant for entry in config.principals.values()),
                *(entry.tenant for entry in config.vaults.values()),
            )
        }

    def by_client_id(self, client_id: str) -> Principal | None:
        """Return the principal with this client id, whatever its tenant."""
        return self._by_client_id.get(client_id.lower())

    def issuer(self, tenant: str) -> str:
        """Return the issuer that stands in a tenant's tokens."""
        return f"{self._issuer_base}/{tenant}/"

    def issue(self, principal: Principal, audience: str) -> str:
        """Return a token of a principal for one audience."""
        now = int(self._clock())
        claims = {
            "aud": audience,
            "iss": self.issuer(principal.tenant),
            "iat": now,
            "nbf": now,
            "exp": now + self.token_lifetime,
            "appid": principal.client_id,
            "oid": principal.object_id,
            "tid": principal.tenant,
            "uti": uuid.uuid4().hex,
            "ver": "1.0",
        }
        return jwt.encode(claims, principal.token_key(), algorithm=_ALGORITHM)

    def verify(self, token: str, *, audience: str, tenant: str) -> Principal:
        """Return the principal that a token proves to a vault of `tenant`.

        Raises:
            TokenRejected: Not a token of ours, expired, or for another audience or tenant.
        """
        principal, claims = self._signed(token)
        if claims["aud"] != audience:
            message = f"AKV10022: Invalid audience. Expected {audience}, found: {claims['aud']}."
            raise TokenRejected(message)
        expected = self.issuer(tenant)
        if claims["iss"] != expected or principal.tenant != tenant:
            message = (
                f"AKV10032: Invalid issuer. Expected one of {expected}, found {claims['iss']}."
            )
            raise TokenRejected(message)
        if not claims["nbf"] <= self._clock() < claims["exp"]:
            message = "[TokenExpired] Error validating token: IDX10223: Lifetime validation failed."
            raise TokenRejected(message)
        return principal

    def _signed(self, token: str) -> tuple[Principal, dict[str, Any]]:
        required = ["aud", "iss", "nbf", "exp", "appid"]
        # The clock is ours and the audience depends on the vault: `verify` looks at both.
        options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
        options |= {"verify_aud": False, "require": required}
        try:
            unverified = jwt.decode(token, options={"verify_signature": False})
            principal = self.by_client_id(str(unverified.get("appid")))
            if principal is None:
                message = "AKV10000: The token's application is not known here."
                raise TokenRejected(message)
            claims: dict[str, Any] = jwt.decode(
                token, principal.token_key(), algorithms=[_ALGORITHM], options=options
            )
        except jwt.PyJWTError:
            message = "[BearerReadAccessTokenFailed] Error validating token."
            raise TokenRejected(message) from None
        return principal, claims

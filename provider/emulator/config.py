"""The configuration: which tenants, principals, vaults and first secrets there are.

A YAML file of this form (the secrets in it are test data; what is set later stays in memory):

    domain: akv.test                # hosts are login.<domain> and <vault>.vault.<domain>
    tenant: 6f1c6a0e-…              # of every principal and vault that names none
    principals:
      demo-app:                     # the name that logs and admin commands use
        client_id: 0b5f2c1e-…
        client_secret: not-a-secret
    vaults:
      demo:
        access: {demo-app: [get, list]}
        secrets:
          db-password: first value
          api-key: {value: abc, content_type: text/plain, enabled: false, expires: 1767225600}
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import msgspec
from typing_extensions import override

from provider.emulator.errors import ConfigInvalid

if TYPE_CHECKING:
    from pathlib import Path

PERMISSIONS = frozenset({"get", "list", "set", "delete", "recover", "purge"})
VAULT_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,22}[a-zA-Z0-9]")
DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")
TENANT = re.compile(r"[a-zA-Z0-9.-]+")  # what azure-identity accepts as a tenant id

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the file; unknown keys are errors, values never show in a repr."""

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class SecretConfig(_Record, frozen=True, kw_only=True):
    """The first version of a secret."""

    value: str
    content_type: str | None = None
    enabled: bool = True
    not_before: int | None = None
    expires: int | None = None
    tags: dict[str, str] = {}


class PrincipalConfig(_Record, frozen=True, kw_only=True):
    """A service principal that authenticates with a client secret."""

    client_id: _Text
    client_secret: _Text
    tenant: _Text | None = None


class VaultConfig(_Record, frozen=True, kw_only=True):
    """A vault: who may do what, and what is in it."""

    tenant: _Text | None = None
    access: dict[str, list[str]] = {}
    secrets: dict[str, str | SecretConfig] = {}


class EmulatorConfig(_Record, frozen=True, kw_only=True):
    """The whole file; `check` has passed on every instance that `parse` returns."""

    tenant: _Text
    principals: dict[str, PrincipalConfig]
    vaults: dict[str, VaultConfig]
    domain: str = "akv.test"
    token_lifetime: Annotated[int, msgspec.Meta(ge=1)] = 3599  # seconds, as Entra ID's default

    @classmethod
    def parse(cls, text: str | bytes) -> EmulatorConfig:
        """Read the YAML text of a configuration.

        Raises:
            ConfigInvalid: It is not YAML of the form above.
        """
        try:
            config = msgspec.yaml.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problem, _, where = str(error).partition(" - at ")
            raise ConfigInvalid(where.replace("`", "") or "file", problem) from None
        config.check()
        return config

    @classmethod
    def load(cls, path: Path) -> EmulatorConfig:
        """Read a configuration file.

        Raises:
            ConfigInvalid: It cannot be read, or `parse` refuses it.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            problem = f"{error.strerror}: give a readable file"
            raise ConfigInvalid(str(path), problem) from error
        return cls.parse(text)

    def check(self) -> None:
        """Check what types cannot say.

        Raises:
            ConfigInvalid: Names the first wrong field.
        """
        if not DOMAIN.fullmatch(self.domain):
            message = "domain"
            raise ConfigInvalid(message, "must be a lower-case DNS name, as akv.test")
        _check_tenant("tenant", self.tenant)
        seen: set[str] = set()
        for name, principal in self.principals.items():
            where = f"principals.{name}"
            _check_tenant(f"{where}.tenant", principal.tenant or self.tenant)
            if principal.client_id.lower() in seen:
                message = f"{where}.client_id"
                raise ConfigInvalid(message, "is taken: give each principal its own")
            seen.add(principal.client_id.lower())
        if len({name.lower() for name in self.vaults}) < len(self.vaults):
            message = "vaults"
            raise ConfigInvalid(message, "two names differ in case only: host names do not")
        for name, vault in self.vaults.items():
            self._check_vault(f"vaults.{name}", name, vault)

    def _check_vault(self, where: str, name: str, vault: VaultConfig) -> None:
        if not VAULT_NAME.fullmatch(name):
            problem = "must have 3 to 24 letters, digits and hyphens, and start with a letter"
            raise ConfigInvalid(where, problem)
        _check_tenant(f"{where}.tenant", vault.tenant or self.tenant)
        for principal, permissions in vault.access.items():
            if principal not in self.principals:
                message = f"{where}.access.{principal}"
                raise ConfigInvalid(message, "must be a name in principals")
            unknown = set(permissions) - PERMISSIONS
            if unknown:
                known = ", ".join(sorted(PERMISSIONS))
                problem = f"has {', '.join(sorted(unknown))}: known are {known}"
                message = f"{where}.access.{principal}"
                raise ConfigInvalid(message, problem)


def _check_tenant(field: str, tenant: str) -> None:
    if not TENANT.fullmatch(tenant):
        raise ConfigInvalid(field, "must have letters, digits, dots and hyphens only")

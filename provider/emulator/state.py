"""Everything the emulator knows while it runs: shared by the services, owned by one thread.

Nothing here waits, so a request sees and leaves a consistent state. What must survive the process
is `export`ed over TLS by a supervisor, which keeps it in memory and `restore`s it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import attrs
import trio

from provider.emulator.config import PERMISSIONS, SecretConfig
from provider.emulator.directory import Directory
from provider.emulator.errors import CommandRefused, ConfigInvalid, ServiceError
from provider.emulator.faults import FaultPlan
from provider.emulator.requestlog import RequestLog
from provider.emulator.vault import Draft, Secret, Vault

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from provider.emulator.config import EmulatorConfig

LOOPBACK: Final = "127.0.0.1"


@attrs.frozen(kw_only=True)
class VaultExport:
    """The content of one vault."""

    secrets: list[Secret]
    access: dict[str, list[str]]


@attrs.frozen(kw_only=True)
class StateExport:
    """The content of all vaults at one revision."""

    revision: int
    vaults: dict[str, VaultExport]


class HostedVault:
    """A vault with its host name, tenant and access policy."""

    def __init__(self, name: str, tenant: str, vault: Vault) -> None:
        self.name = name
        self.tenant = tenant
        self.vault = vault
        self.access: dict[str, set[str]] = {}  # principal's name to permissions


class EmulatorState:
    """Tenants, vaults, faults and the request log of one emulator.

    Args:
        config: Checked configuration.
        port: Where it listens: part of every URL, so of the tokens' audience too.
        address: Where it listens; all names lead there.
        clock: Unix time.
    """

    def __init__(
        self,
        config: EmulatorConfig,
        port: int,
        clock: Callable[[], float] = time.time,
        *,
        address: str = LOOPBACK,
    ) -> None:
        self.vault_domain = f"vault.{config.domain}"
        self.login_host = f"login.{config.domain}"
        self.address = address
        self.port = port
        self.resource = f"https://{self.vault_domain}:{port}"
        self.login_url = f"https://{self.login_host}:{port}"
        # A second audience that Entra ID knows, as the real one knows Azure Resource Manager: a
        # vault must refuse its tokens.
        self.audiences = {self.resource, f"https://management.{config.domain}:{port}"}
        self.directory = Directory(config, f"https://sts.{config.domain}", clock)
        self.faults = FaultPlan()
        self.log = RequestLog(clock)
        self.revision = 0
        self._changed = trio.Event()
        self.vaults = {name.lower(): self._host(name, config, clock) for name in config.vaults}

    def host_name(self, vault: HostedVault) -> str:
        """Return the host name of a vault, without port."""
        return f"{vault.name}.{self.vault_domain}"

    def vault(self, name: str) -> HostedVault:
        """Return a vault by name.

        Raises:
            CommandRefused: There is no such vault.
        """
        try:
            return self.vaults[name.lower()]
        except KeyError:
            known = ", ".join(sorted(self.vaults))
            message = f"vault: there is no {name}; known are {known}"
            raise CommandRefused(message) from None

    def grant(self, vault: str, principal: str, permissions: Collection[str]) -> None:
        """Add permissions of a principal."""
        hosted, name = self.vault(vault), self._principal_name(principal)
        unknown = set(permissions) - PERMISSIONS
        if unknown:
            known = ", ".join(sorted(PERMISSIONS))
            message = f"permissions: {', '.join(sorted(unknown))} not among {known}"
            raise CommandRefused(message)
        hosted.access.setdefault(name, set()).update(permissions)
        self.changed()

    def revoke(self, vault: str, principal: str, permissions: Collection[str] | None) -> None:
        """Take permissions from a principal; None takes all."""
        hosted, name = self.vault(vault), self._principal_name(principal)
        left = hosted.access.get(name, set()) - set(
            PERMISSIONS if permissions is None else permissions
        )
        hosted.access[name] = left
        self.changed()

    def export(self) -> StateExport:
        """Return the content of all vaults, values included."""
        return StateExport(
            revision=self.revision,
            vaults={
                hosted.name: VaultExport(
                    secrets=hosted.vault.dump(),
                    access={who: sorted(what) for who, what in hosted.access.items()},
                )
                for hosted in self.vaults.values()
            },
        )

    def restore(self, exported: StateExport) -> None:
        """Replace the content of the vaults that an export names.

        Raises:
            CommandRefused: It names a vault that the configuration does not have.
        """
        found = [(self.vault(name), content) for name, content in exported.vaults.items()]
        for hosted, content in found:
            hosted.access = {who: set(what) for who, what in content.access.items()}
            hosted.vault.load(content.secrets)

    def changed(self) -> None:
        """Note that a vault's content or access policy is not what it was."""
        self.revision += 1
        self._changed.set()
        self._changed = trio.Event()

    async def wait_beyond(self, revision: int, seconds: float) -> bool:
        """Wait until `revision` is history; False when it still holds after `seconds`."""
        with trio.move_on_after(seconds):
            while self.revision <= revision:
                await self._changed.wait()
        return self.revision > revision

    def _principal_name(self, principal: str) -> str:
        if principal in self.directory.principals:
            return principal
        found = self.directory.by_client_id(principal)
        if found is None:
            known = ", ".join(sorted(self.directory.principals))
            message = f"principal: there is no {principal}; known are {known}"
            raise CommandRefused(message)
        return found.name

    def _host(self, name: str, config: EmulatorConfig, clock: Callable[[], float]) -> HostedVault:
        entry = config.vaults[name]
        vault = Vault(clock, self.changed)
        hosted = HostedVault(name.lower(), (entry.tenant or config.tenant).lower(), vault)
        hosted.access = {who: set(what) for who, what in entry.access.items()}
        for secret, given in entry.secrets.items():
            first = SecretConfig(value=given) if isinstance(given, str) else given
            draft = Draft(
                value=first.value,
                enabled=first.enabled,
                not_before=first.not_before,
                expires=first.expires,
                content_type=first.content_type,
                tags=first.tags,
            )
            try:
                vault.set(secret, draft)
            except ServiceError as error:
                message = f"vaults.{name}.secrets.{secret}"
                raise ConfigInvalid(message, error.message) from None
        return hosted

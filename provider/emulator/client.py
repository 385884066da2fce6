"""Client of the admin API, for tests and for the programs that run the emulator."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from provider.emulator.admin import PREFIX
from provider.emulator.errors import CommandRefused, EmulatorUnavailable
from provider.emulator.faults import Fault, FaultKind
from provider.emulator.files import INDEX, Index
from provider.emulator.requestlog import LogEntry
from provider.emulator.state import StateExport
from provider.emulator.vault import Draft

if TYPE_CHECKING:
    from collections.abc import Collection

_ANSWER_S = 30.0


@attrs.frozen
class EmulatorClient:
    """Speaks to the emulator that describes itself in a directory.

    Every call reads the directory and makes a connection of its own: a client goes on after a
    restart of the emulator, and may be used by several threads.

    All methods raise `EmulatorUnavailable` when nobody answers, and `CommandRefused` when the
    emulator does not do what it is told, which then changed nothing.
    """

    directory: Path

    @classmethod
    def from_dir(cls, directory: Path | str) -> EmulatorClient:
        """Return a client of the emulator that was started with `--dir directory`."""
        return cls(Path(directory))

    @property
    def index(self) -> Index:
        """What `emulator.json` says now."""
        try:
            return msgspec.json.decode((self.directory / INDEX).read_bytes(), type=Index)
        except (OSError, msgspec.DecodeError) as error:
            message = f"{self.directory / INDEX}: {error}; is the emulator running?"
            raise EmulatorUnavailable(message) from error

    @property
    def port(self) -> int:
        """Port on its address."""
        return self.index.port

    @property
    def url(self) -> str:
        """URL of the admin API."""
        return self.index.url

    @property
    def ca_file(self) -> Path:
        """Certificate of the authority, for `connection_verify`."""
        return Path(self.index.ca_file)

    @property
    def cloud_file(self) -> Path:
        """Environment file for `cloudName: AzureStackCloud`."""
        return Path(self.index.cloud_file)

    @property
    def hosts_file(self) -> Path:
        """Hosts file for `provider.emulator.hosts`."""
        return Path(self.index.hosts_file)

    @property
    def login_url(self) -> str:
        """Authority host of Entra ID, without a slash at the end."""
        return self.index.login_url

    @property
    def vaults(self) -> dict[str, str]:
        """URL of each vault by its name."""
        return self.index.vaults

    def set_secret(
        self,
        vault: str,
        name: str,
        value: str,
        *,
        content_type: str | None = None,
        enabled: bool | None = None,
        not_before: int | None = None,
        expires: int | None = None,
        tags: dict[str, str] | None = None,
        created: int | None = None,
    ) -> str:
        """Add a version of a secret and return its id; times are Unix seconds."""
        draft = Draft(
            value=value,
            content_type=content_type,
            enabled=enabled,
            not_before=not_before,
            expires=expires,
            tags=tags,
            created=created,
        )
        return str(self._call("set-secret", {"vault": vault, "name": name, "draft": draft}))

    def disable(self, vault: str, name: str) -> None:
        """Disable the latest version of a secret."""
        self._call("disable", {"vault": vault, "name": name})

    def enable(self, vault: str, name: str) -> None:
        """Enable the latest version of a secret."""
        self._call("enable", {"vault": vault, "name": name})

    def delete(self, vault: str, name: str) -> None:
        """Soft-delete a secret."""
        self._call("delete", {"vault": vault, "name": name})

    def recover(self, vault: str, name: str) -> None:
        """Undo a delete."""
        self._call("recover", {"vault": vault, "name": name})

    def grant(self, principal: str, vault: str, permissions: Collection[str]) -> None:
        """Give permissions to a principal, named as in the configuration or by client id."""
        arguments = {"principal": principal, "vault": vault, "permissions": list(permissions)}
        self._call("grant", arguments)

    def revoke(
        self, principal: str, vault: str, permissions: Collection[str] | None = None
    ) -> None:
        """Take permissions from a principal; all of them unless told which."""
        taken = None if permissions is None else list(permissions)
        self._call("revoke", {"principal": principal, "vault": vault, "permissions": taken})

    def fault(
        self,
        kind: FaultKind | str,
        *,
        vault: str | None = None,
        name: str | None = None,
        operation: str | None = None,
        count: int | None = 1,
        seconds: float = 1.0,
        retry_after: int | None = None,
        status: int = 500,
    ) -> None:
        """Plan a fault.

        Args:
            kind: `throttle`, `slow`, `reset`, `truncate` or `error`.
            vault: Only requests to this vault.
            name: Only requests for this secret.
            operation: Only this kind of the request log. Without it every authenticated request
                to a vault is meant; challenges, tokens and discovery must be named.
            count: How many requests suffer; None means until `clear_faults`.
            seconds: How long `slow` waits.
            retry_after: `Retry-After` of `throttle`; None sends none.
            status: Status of `error`.
        """
        self._call(
            "fault",
            Fault(
                kind=FaultKind(kind),
                vault=vault,
                name=name,
                operation=operation,
                count=count,
                seconds=seconds,
                retry_after=retry_after,
                status=status,
            ),
        )

    def clear_faults(self) -> None:
        """Drop all faults that still wait."""
        self._call("clear-faults", {})

    def request_log(self, kind: str | None = None, *, after: int = 0) -> list[LogEntry]:
        """Return the requests of one kind, or all, that came after an entry's number."""
        entries = self._call("log", {"kind": kind, "after": after})
        return msgspec.convert(entries, list[LogEntry])

    def reset_log(self) -> None:
        """Forget the request log."""
        self._call("reset-log", {})

    def export_state(
        self, *, beyond: int | None = None, wait_seconds: float = 0.0
    ) -> StateExport | None:
        """Return the content of all vaults, with its secret values.

        Args:
            beyond: Only a state of a later revision than this one; None when there is none.
            wait_seconds: How long to wait for it.
        """
        arguments = {"beyond": beyond, "wait_seconds": wait_seconds}
        state = self._call("export", arguments, _ANSWER_S + wait_seconds)
        return msgspec.convert(state, StateExport | None)

    def restore_state(self, state: StateExport) -> None:
        """Put the content of vaults back, as after a restart."""
        self._call("restore", state)

    def _call(self, command: str, arguments: object, timeout: float = _ANSWER_S) -> Any:  # noqa: ANN401 - JSON
        index = self.index
        try:
            token = Path(index.admin_token_file).read_text("ascii")
            context = ssl.create_default_context(cafile=index.ca_file)
            connection = http.client.HTTPSConnection(
                index.address, index.port, timeout=timeout, context=context
            )
            try:
                connection.request(
                    "POST",
                    PREFIX + command,
                    msgspec.json.encode(arguments),
                    {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                )
                response = connection.getresponse()
                content = msgspec.json.decode(response.read())
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            message = f"{index.url} does not answer: {error}; is the emulator running?"
            raise EmulatorUnavailable(message) from error
        if response.status != http.client.OK:
            raise CommandRefused(str(content["error"]))
        return content

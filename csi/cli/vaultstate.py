"""The emulated vault across restarts of its process, and the one way to change it.

The emulator keeps its vaults in memory. Their content is exported here whenever it changes and
restored into a successor before anything else is let through, so a version that `set_secret`
returned for is never lost.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

import trio

from csi.cli.errors import SetupFailed, UnknownSecret, VaultRefused
from provider.emulator import (
    CommandRefused,
    EmulatorClient,
    EmulatorUnavailable,
    StateExport,
)

if TYPE_CHECKING:
    from collections.abc import Collection

log = logging.getLogger(__name__)

VAULT: Final = "demo-vault"

_PATIENCE_S: Final = 20.0
_LOOK_S: Final = 0.02
_LONG_POLL_S: Final = 60.0


class HasPid(Protocol):
    """The program that is the emulator at the moment."""

    @property
    def pid(self) -> int | None:
        """Its process id."""
        ...


class VaultState:
    """The vault of a run."""

    def __init__(self, client: EmulatorClient, emulator: HasPid, names: Collection[str]) -> None:
        """Keep the vault of the program `emulator`, which `client` reaches."""
        self._client = client
        self._emulator = emulator
        self._names = list(names)
        self._kept: StateExport | None = None
        self._ready = trio.Event()
        self._changing = trio.Lock()

    async def run(self) -> None:
        """Restore into each new emulator, then follow it until it ends."""
        while True:
            await self._wait_for_index()
            try:
                async with self._changing:
                    await self._restore()
                self._ready.set()
                await self._follow()
            except EmulatorUnavailable:
                log.debug("the emulator is gone; its successor gets the vault's content")
            except CommandRefused:
                log.exception("the emulator refuses its own content")
            if self._ready.is_set():  # otherwise somebody waits for this one
                self._ready = trio.Event()

    async def wait_ready(self) -> None:
        """Return when the vault answers with its content."""
        await self._ready.wait()

    async def set_secret(self, name: str, value: str) -> str:
        """Add a version of a secret; return its id once it would survive the emulator.

        Raises:
            UnknownSecret: The playground has no secret of this name.
            VaultRefused: The vault does not take the value.
            SetupFailed: The emulator does not come back.
        """
        if name not in self._names:
            raise UnknownSecret(name, self._names)
        with trio.move_on_after(_PATIENCE_S):
            while True:
                await self._ready.wait()
                try:
                    async with self._changing:
                        return await self._set_and_keep(name, value)
                except EmulatorUnavailable:
                    await trio.sleep(_LOOK_S)  # it was killed meanwhile
        message = f"the emulated vault has not answered for {_PATIENCE_S:.0f} s; see its log"
        raise SetupFailed(message)

    async def _set_and_keep(self, name: str, value: str) -> str:
        try:
            version = await trio.to_thread.run_sync(self._client.set_secret, VAULT, name, value)
        except CommandRefused as error:
            message = f"the vault does not take the value of {name!r}: {error}"
            raise VaultRefused(message) from error
        self._kept = await trio.to_thread.run_sync(self._client.export_state)
        return version.rpartition("/")[2]

    async def _wait_for_index(self) -> None:
        """Return when the emulator that runs now has described itself; its files outlive it."""
        while True:
            try:
                if self._client.index.pid == self._emulator.pid:
                    return
            except EmulatorUnavailable:
                pass
            await trio.sleep(_LOOK_S)

    async def _restore(self) -> None:
        if self._kept is not None:
            await trio.to_thread.run_sync(self._client.restore_state, self._kept)
        self._kept = await trio.to_thread.run_sync(self._client.export_state)

    async def _follow(self) -> None:
        """Keep what others change, too."""
        while self._kept is not None:
            state = await trio.to_thread.run_sync(
                self._export_beyond, self._kept.revision, abandon_on_cancel=True
            )
            if state is not None and (self._kept is None or state.revision > self._kept.revision):
                self._kept = state

    def _export_beyond(self, revision: int) -> StateExport | None:
        return self._client.export_state(beyond=revision, wait_seconds=_LONG_POLL_S)

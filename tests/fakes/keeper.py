"""A keeper in memory, with the rules of the real one and hooks for faults."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from fakes.kubelet import ROOT
from fusefs.errors import KeeperUnavailable, Superseded, TargetRefused, VolumeUnknown
from fusefs.published import DEFAULTS, PublishedVolume, Shown, VolumeOptions
from fusefs.snapshot import Sealed, Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Moment = Literal["before", "after"]


@attrs.define(kw_only=True)
class KeptVolume:
    """A volume that the fake serves."""

    volume_id: str
    target: str
    snapshot: Snapshot
    record: bytes
    options: VolumeOptions = DEFAULTS

    def shown(self) -> dict[str, bytes]:
        """Return what a pod would read."""
        return {entry.path: self.snapshot.content(entry.path) for entry in self.snapshot.entries()}


class FakeKeeper:
    """What survives of a keeper between sessions.

    Attributes:
        kept: The volumes that it serves.
        calls: Every call that changes something, by name.
        hook: Called with the name of a call before and after its effect; may raise or wait.
        listening: False: nobody listens at the socket.
        restart: Containers that still see what a target showed before.
        no_fuse: Why volumes that may be are a tmpfs; empty where they need not be.
    """

    def __init__(self, *, root: str = ROOT) -> None:
        """Start without volumes, listening; targets must be below `root`."""
        self.root = root
        self.kept: dict[str, KeptVolume] = {}
        self.calls: list[str] = []
        self.hook: Callable[[str, Moment], Awaitable[None]] | None = None
        self.listening = True
        self.no_fuse = ""
        self.restart: tuple[str, ...] = ()
        self.sessions: list[FakeSession] = []

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[FakeSession]:
        """Open a session; it is the one that is obeyed from now on."""
        await trio.lowlevel.checkpoint()
        if not self.listening:
            message = "no keeper listens"
            raise KeeperUnavailable(message)
        session = FakeSession(self)
        self.sessions.append(session)
        try:
            yield session
        finally:
            session.lost.set()

    def disconnect(self) -> None:
        """Lose every connection; what is served stays."""
        for session in self.sessions:
            session.lost.set()

    def dismiss(self) -> None:
        """Tell every session that a newer one is obeyed."""
        for session in self.sessions:
            session.dismissed = True
            session.lost.set()

    def kill(self) -> None:
        """Die, and with it every mount."""
        self.disconnect()
        for volume in self.kept.values():
            volume.snapshot.close()
        self.kept.clear()

    def shown(self, volume_id: str) -> dict[str, bytes]:
        """Return what a pod would read in a volume."""
        return self.kept[volume_id].shown()


class FakeSession:
    """One session, as `fusefs.client.KeeperClient` offers it."""

    def __init__(self, keeper: FakeKeeper) -> None:
        """Belong to `keeper`."""
        self._keeper = keeper
        self.lost = trio.Event()
        self.dismissed = False

    async def publish(
        self,
        volume_id: str,
        target: str,
        sealed: Sealed,
        *,
        record: bytes,
        options: VolumeOptions = DEFAULTS,
    ) -> Shown:
        """Serve a volume; at the same target already is fine."""
        await self._begin("publish")
        known = self._keeper.kept.get(volume_id)
        if known is None:
            self._keeper.kept[volume_id] = KeptVolume(
                volume_id=volume_id,
                target=target,
                snapshot=_copy(sealed.snapshot),
                record=record,
                options=options,
            )
        elif known.target != target:
            message = f"volume {volume_id!r} is published at {known.target!r}"
            raise TargetRefused(message)
        else:
            known.record = record
        await self._end("publish")
        reason = self._keeper.no_fuse if options.filesystem == "auto" else ""
        tmpfs = options.filesystem == "tmpfs" or reason
        return Shown(
            filesystem="tmpfs" if tmpfs else "fuse", reason=reason, restart=self._keeper.restart
        )

    async def rotate(self, volume_id: str, sealed: Sealed, *, record: bytes) -> None:
        """Bring in a newer generation; an older one is fine and ignored."""
        await self._begin("rotate")
        known = self._known(volume_id)
        if sealed.snapshot.generation > known.snapshot.generation:
            known.snapshot.close()
            known.snapshot, known.record = _copy(sealed.snapshot), record
        await self._end("rotate")

    async def update_record(self, volume_id: str, record: bytes) -> None:
        """Replace a record."""
        await self._begin("update_record")
        self._known(volume_id).record = record
        await self._end("update_record")

    async def unpublish(self, volume_id: str, target: str) -> None:
        """Take a volume away; an unknown one is fine."""
        await self._begin("unpublish")
        if not target.startswith(f"{self._keeper.root}/pods/"):
            message = f"target {target!r} does not follow the layout"
            raise TargetRefused(message, layout=True)
        known = self._keeper.kept.pop(volume_id, None)
        if known is not None:
            known.snapshot.close()
        await self._end("unpublish")

    async def volumes(self, *, snapshots: bool = True) -> list[PublishedVolume]:
        """Return everything that is served."""
        await trio.lowlevel.checkpoint()
        self._check_connection()
        return [
            PublishedVolume(
                volume_id=volume.volume_id,
                target=volume.target,
                generation=volume.snapshot.generation,
                record=volume.record,
                worker_pid=None,
                snapshot=_copy(volume.snapshot) if snapshots else None,
            )
            for volume in self._keeper.kept.values()
        ]

    async def wait_lost(self) -> None:
        """Return when the connection is lost."""
        await self.lost.wait()
        if self.dismissed:
            message = "a newer node server has registered"
            raise Superseded(message)

    async def _begin(self, call: str) -> None:
        await trio.lowlevel.checkpoint()
        self._check_connection()
        self._keeper.calls.append(call)
        if self._keeper.hook is not None:
            await self._keeper.hook(call, "before")
        self._check_connection()
        if self._keeper.sessions[-1] is not self:
            message = "a newer node server has registered"
            raise Superseded(message)

    async def _end(self, call: str) -> None:
        if self._keeper.hook is not None:
            await self._keeper.hook(call, "after")
        self._check_connection()

    def _check_connection(self) -> None:
        if self.lost.is_set():
            message = "the connection to the keeper was lost"
            raise KeeperUnavailable(message)

    def _known(self, volume_id: str) -> KeptVolume:
        if volume_id not in self._keeper.kept:
            message = f"volume {volume_id!r} is not published"
            raise VolumeUnknown(message)
        return self._keeper.kept[volume_id]


def _copy(snapshot: Snapshot) -> Snapshot:
    """Do what passing the descriptor over a socket does."""
    return Snapshot.map(os.dup(snapshot.fd), snapshot.digest)

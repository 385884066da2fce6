"""One lock per volume, which an unpublish can seize from a refresh."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from csi.records import VolumeId


@attrs.define
class _Entry:
    lock: trio.Lock = attrs.field(factory=trio.Lock)
    users: int = 0
    interruptible: trio.CancelScope | None = None


class VolumeLocks:
    """Locks that exist while somebody holds or awaits them."""

    def __init__(self) -> None:
        """Start without locks."""
        self._entries: dict[VolumeId, _Entry] = {}

    def busy(self, volume_id: VolumeId) -> bool:
        """Return whether somebody holds or awaits the lock."""
        return volume_id in self._entries

    @asynccontextmanager
    async def hold(self, volume_id: VolumeId) -> AsyncIterator[None]:
        """Hold the lock of a volume."""
        entry = self._entries.setdefault(volume_id, _Entry())
        entry.users += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.users -= 1
            if not entry.users:
                del self._entries[volume_id]

    @asynccontextmanager
    async def hold_interruptibly(self, volume_id: VolumeId) -> AsyncIterator[None]:
        """Hold the lock until the end of the block, or until somebody seizes it.

        Whoever seizes it cancels the block, which then ends without an exception.
        """
        async with self.hold(volume_id):
            entry = self._entries[volume_id]
            with trio.CancelScope() as scope:  # noqa: ASYNC100 - the caller's block waits
                entry.interruptible = scope
                try:
                    yield
                finally:
                    entry.interruptible = None

    @asynccontextmanager
    async def seize(self, volume_id: VolumeId) -> AsyncIterator[None]:
        """Hold the lock, after cancelling what holds it interruptibly."""
        entry = self._entries.get(volume_id)
        if entry is not None and entry.interruptible is not None:
            entry.interruptible.cancel()
        async with self.hold(volume_id):
            yield

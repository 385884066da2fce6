"""A node server reduced to its session with the keeper, which it keeps as the real one does."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self

import trio

from fusefs.backup import Backups
from fusefs.client import KeeperClient, connect
from fusefs.errors import KeeperUnavailable, Superseded
from harness.outcomes import stalls
from harness.volumes import PublishedVolume

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from harness.kubelet import KubeletRoot
    from harness.load import Load, Report

ROTATION_S: Final = 0.1
AROUND_S: Final = 1.0
RETRY_S: Final = 0.02
PATIENCE_S: Final = 30.0


class NodeServer:
    """Holds a session with whatever keeper there is, and everything between two of them.

    Attributes:
        backups: What is held.
        keepers: How many sessions there have been.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.backups = Backups()
        self._client: KeeperClient | None = None
        self._changed = trio.Event()
        self.keepers = 0

    @classmethod
    @asynccontextmanager
    async def running(cls, socket: Path) -> AsyncIterator[Self]:
        """Be a node server for a while."""
        made = cls(socket)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made._run)
            yield made
            nursery.cancel_scope.cancel()
        made.backups.close()

    @asynccontextmanager
    async def published(self, kubelet: KubeletRoot) -> AsyncIterator[PublishedVolume]:
        """Publish the standard files; the volume is gone at the end."""
        pod_volume = kubelet.volume()
        pod_volume.prepare()
        made = PublishedVolume(await self.client(), pod_volume)
        await made.publish()
        try:
            yield made
        finally:
            if self.connected:  # else another one has taken over, and the volume with it
                made.client = await self.client()
                await made.unpublish()
            made.close()

    async def _run(self) -> None:
        """Connect again whenever the session is lost, until superseded."""
        while True:
            try:
                async with connect(str(self._socket), backups=self.backups) as client:
                    self._use(client)
                    await client.wait_lost()
            except KeeperUnavailable:
                await trio.sleep(RETRY_S)
            except Superseded:
                return
            finally:
                self._use(None)

    def _use(self, client: KeeperClient | None) -> None:
        self._client = client
        self.keepers += client is not None
        self._changed.set()
        self._changed = trio.Event()

    @property
    def connected(self) -> bool:
        """Whether there is a session at the moment."""
        return self._client is not None

    async def client(self) -> KeeperClient:
        """Return the session, once there is one."""
        with trio.fail_after(PATIENCE_S):
            while self._client is None:
                await self._changed.wait()
        return self._client

    async def next_client(self, before: KeeperClient) -> KeeperClient:
        """Return a session that is another than `before`."""
        with trio.fail_after(PATIENCE_S):
            while self._client is None or self._client is before:
                await self._changed.wait()
        return self._client


async def rotate_for_ever(node: NodeServer, volume: PublishedVolume, running: Load) -> None:
    """Rotate at a fixed pace; after a keeper that took a rotation with it, see what came of it."""
    while True:
        await trio.sleep(ROTATION_S)
        volume.client = await node.client()
        try:
            running.acknowledge(await volume.rotate())
        except KeeperUnavailable:
            await follow(node, volume)


async def follow(node: NodeServer, volume: PublishedVolume) -> None:
    """Take what the next keeper serves for the newest generation, as a node server does."""
    while True:
        try:
            [found] = await (await node.client()).volumes()
        except KeeperUnavailable:
            await trio.sleep(RETRY_S)
            continue
        assert volume.snapshot is not None
        assert found.snapshot is not None
        assert found.generation >= volume.snapshot.generation, "an older generation came back"
        volume.snapshot.close()
        volume.snapshot = found.snapshot
        return


def summary(reports: list[Report], moments: list[float]) -> str:
    """Return a line for each reader, and the stalls."""
    lines = [
        f"{report.reader}: {len(report.begun)} reads, faults {report.faults or 'none'} "
        f"{' '.join(report.examples)}"
        for report in reports
    ]
    found = stalls(reports, moments, before_s=AROUND_S, after_s=AROUND_S)
    milliseconds = " ".join(f"{stall * 1e3:.0f}" for stall in sorted(found))
    return "\n".join([*lines, f"stalls of {len(moments)} events, ms: {milliseconds}"])

"""Volumes that come and go in any order, with kills in between."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from typing import TYPE_CHECKING, Final

import trio

from fusefs.backup import Backups
from fusefs.client import connect
from harness.volumes import PublishedVolume, content

if TYPE_CHECKING:
    from pathlib import Path

    from fusefs.client import KeeperClient
    from harness.kubelet import KubeletRoot
    from harness.programs import Program

ALIVE: Final = 12  # at a time, at most
KEEPER_KILLS: Final = 4
UNMOUNTED_EACH: Final = 100


async def publish_often(published: PublishedVolume, kubelet: KubeletRoot, times: int) -> None:
    """Publish a volume again and again, unmounted by somebody at times; it has one mount."""
    for number in range(times):
        if number % UNMOUNTED_EACH == 0:
            await trio.run_process(["umount", "--lazy", str(published.target)])
        again = PublishedVolume(published.client, published.volume)
        await again.publish()
        again.close()
        assert len(kubelet.mounts()) == 1


class Churn:
    """A node on which volumes come and go, and processes are killed.

    Attributes:
        alive: The volumes that are published.
        done: How often each thing was done.
    """

    def __init__(
        self, keeper: Program, socket: Path, kubelet: KubeletRoot, seed: int, *, volumes: int
    ) -> None:
        """Let so many volumes come and go, as chance has it."""
        self._volumes = volumes
        self._keeper = keeper
        self._socket = socket
        self._kubelet = kubelet
        self._chance = random.Random(seed)
        self.alive: list[PublishedVolume] = []
        self.done: dict[str, int] = {}

    async def run(self) -> None:
        """Let all volumes come and go; sessions end with their keeper, which is restarted."""
        backups, left = Backups(), self._volumes
        at = {left * kill // (KEEPER_KILLS + 1) for kill in range(1, KEEPER_KILLS + 1)}
        while left or self.alive:
            async with connect(str(self._socket), backups=backups) as client:
                for volume in self.alive:
                    volume.client = client
                while left or self.alive:
                    left -= await self._step(client, may_publish=left > 0)
                    if left in at:
                        at.remove(left)
                        self._note("keeper killed")
                        self._keeper.kill()
                        break
                else:
                    assert not await client.volumes(snapshots=False)
            if self._keeper.ended():
                await self._restart()
        backups.close()

    async def _restart(self) -> None:
        self._socket.unlink()
        self._keeper.restart()
        self._keeper.wait_until(self._socket.exists, "the control socket is there again")

    def _note(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1

    async def _step(self, client: KeeperClient, *, may_publish: bool) -> bool:
        """Do one thing; return whether it was a new volume."""
        if may_publish and len(self.alive) < self._chance.randint(1, ALIVE):
            volume = PublishedVolume(client, self._kubelet.prepared())
            await volume.publish()
            self.alive.append(volume)
            self._note("published")
            return True
        volume = self._chance.choice(self.alive)
        what = self._chance.choice(["again", "rotated", "worker killed", "removed", "removed"])
        self._note(what)
        match what:
            case "again":
                again = PublishedVolume(client, volume.volume)
                await again.publish()
                again.close()
            case "rotated":
                await volume.rotate()
            case "worker killed":
                pid = await volume.worker_pid()
                with contextlib.suppress(ProcessLookupError):  # killed the last time
                    if pid is not None:
                        os.kill(pid, signal.SIGKILL)
            case "removed":
                await self._remove(volume)
        return False

    async def _remove(self, volume: PublishedVolume) -> None:
        assert (volume.target / "user").read_bytes() == content("user", volume.generation)
        await volume.unpublish()
        self.alive.remove(volume)
        assert not os.path.lexists(volume.target)
        if self._chance.random() < 0.1:
            await volume.unpublish()  # kubelet asks again when it missed the answer
        volume.close()
        volume.volume.remove()

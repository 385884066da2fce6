"""Many requests in any order, with kills in between: one mount each, and in the end none."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from fusefs.backup import Backups
from fusefs.client import KeeperClient, connect
from harness.volumes import PublishedVolume, content

if TYPE_CHECKING:
    from harness.kubelet import KubeletRoot
    from harness.programs import Program

PUBLISHES: Final = 1000
UNMOUNTED_EACH: Final = 100
VOLUMES: Final = 200
ALIVE: Final = 12  # at a time, at most
KEEPER_KILLS: Final = 4
FUSE: Final = "/dev/fuse"


def descriptors(pid: int, link: str = "") -> int:
    """Return how many descriptors a process has open, of all or of one file."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(path))
    return sum(1 for name in found if not link or name == link)


def children(pid: int) -> list[str]:
    """Return the processes that a process has started and not reaped."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


@pytest.mark.timeout(120)
async def test_thousand_publishes_are_one_mount(
    published: PublishedVolume, keeper: Program, kubelet: KubeletRoot
) -> None:
    """However often a volume is published, and unmounted by somebody, its target has one mount."""
    pid, before = await published.worker_pid(), descriptors(keeper.pid)
    for number in range(PUBLISHES):
        if number % UNMOUNTED_EACH == 0:
            await trio.run_process(["umount", "--lazy", str(published.target)])
        again = PublishedVolume(published.client, published.volume)
        await again.publish()
        again.close()
        assert len(kubelet.mounts()) == 1
    assert (await published.worker_pid(), descriptors(keeper.pid)) == (pid, before)
    assert (published.target / "user").read_bytes() == content("user", 1)


class Churn:
    """A node on which volumes come and go, and processes are killed.

    Attributes:
        alive: The volumes that are published.
        done: How often each thing was done.
    """

    def __init__(self, keeper: Program, socket: Path, kubelet: KubeletRoot, seed: int) -> None:
        self._keeper = keeper
        self._socket = socket
        self._kubelet = kubelet
        self._chance = random.Random(seed)
        self.alive: list[PublishedVolume] = []
        self.done: dict[str, int] = {}

    async def run(self) -> None:
        """Let all volumes come and go; sessions end with their keeper, which is restarted."""
        backups, left = Backups(), VOLUMES
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


@pytest.mark.timeout(240)
async def test_volumes_in_random_order_leave_nothing(
    keeper: Program, keeper_socket: Path, kubelet: KubeletRoot
) -> None:
    """Whatever comes in between, no mount, process, directory or descriptor is left of a volume."""
    seed = random.randrange(2**32)
    churn = Churn(keeper, keeper_socket, kubelet, seed)
    print(f"\nseed {seed}")
    try:
        await churn.run()
    finally:
        print(churn.done)
    assert churn.done["published"] == VOLUMES
    assert not kubelet.mounts()
    assert list((kubelet.path / "pods").iterdir()) == []
    with trio.fail_after(10):
        while children(keeper.pid):
            await trio.sleep(0.01)
    assert descriptors(keeper.pid, FUSE) == 0
    assert descriptors(os.getpid(), FUSE) == 0

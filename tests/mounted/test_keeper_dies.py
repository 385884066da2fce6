"""The mount outlives its keeper: killed under readers, started again, given everything back."""

from __future__ import annotations

import os
import random
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
import trio

from fusefs.backup import Backups
from fusefs.client import KeeperClient, connect
from fusefs.errors import KeeperUnavailable, Superseded
from fusefs.supervisor import STABLE_S
from harness.load import load
from harness.programs import Program
from harness.volumes import LIVE_FILES, PublishedVolume, content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from harness.kubelet import KubeletRoot
    from harness.load import Load, Report

KILLS: Final = 10
ROTATION_S: Final = 0.1
BETWEEN_S: Final = STABLE_S + 0.3  # a keeper that dies younger is started later
AROUND_S: Final = 1.0
RETRY_S: Final = 0.02
PATIENCE_S: Final = 30.0


@pytest.fixture
def supervised(tmp_path: Path, kubelet: KubeletRoot, keeper_socket: Path) -> Iterator[Program]:
    """Run a keeper under its supervisor."""
    arguments = ["fusefs", "--socket", str(keeper_socket), "--kubelet-root", str(kubelet.path)]
    with Program("keeper", [*arguments, "--supervise"], log=tmp_path / "keeper.log") as program:
        program.wait_until(keeper_socket.exists, "the control socket is there")
        yield program


class NodeServer:
    """Holds a session with whatever keeper there is, and everything between two of them."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.backups = Backups()
        self._client: KeeperClient | None = None
        self._changed = trio.Event()
        self.keepers = 0

    async def run(self) -> None:
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
        """Return a session with another keeper than `before`'s."""
        with trio.fail_after(PATIENCE_S):
            while self._client is None or self._client is before:
                await self._changed.wait()
        return self._client


@pytest.fixture
async def node(supervised: Program, keeper_socket: Path) -> AsyncIterator[NodeServer]:
    """Be a node server."""
    assert not supervised.ended()
    made = NodeServer(keeper_socket)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        yield made
        nursery.cancel_scope.cancel()
    made.backups.close()


@pytest.fixture
async def volume(node: NodeServer, kubelet: KubeletRoot) -> AsyncIterator[PublishedVolume]:
    """Publish the standard files; the volume is gone at the end."""
    pod_volume = kubelet.volume()
    pod_volume.prepare()
    made = PublishedVolume(await node.client(), pod_volume)
    await made.publish()
    try:
        yield made
    finally:
        if node.connected:  # else another one has taken over, and the volume with it
            made.client = await node.client()
            await made.unpublish()
        made.close()


def readers(target: Path) -> dict[str, tuple[str, Path]]:
    """Return two readers in Python and one in C."""
    return {
        "live": ("live", target / "user"),
        "data": ("pair", target),
        "c": ("c", target / "nest/deep/cert"),
    }


def stall_around(report: Report, moment: float) -> float:
    """Return the longest gap between two completed reads of one reader around an event."""
    gaps = [
        later - earlier
        for earlier, later in pairwise(report.ended)
        if later >= moment - AROUND_S and earlier <= moment + AROUND_S
    ]
    return max(gaps, default=0.0)


def summary(reports: list[Report], kills: list[float]) -> str:
    """Return a line for each reader, and the stalls."""
    stalls = sorted(max(stall_around(report, kill) for report in reports) for kill in kills)
    lines = [
        f"{report.reader}: {len(report.begun)} reads, faults {report.faults or 'none'} "
        f"{' '.join(report.examples)}"
        for report in reports
    ]
    milliseconds = " ".join(f"{stall * 1e3:.0f}" for stall in stalls)
    return "\n".join([*lines, f"stalls of {len(kills)} kills, ms: {milliseconds}"])


async def rotate_for_ever(node: NodeServer, volume: PublishedVolume, running: Load) -> None:
    """Rotate at a fixed pace; a rotation that a keeper took with it is asked for anew."""
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


@pytest.mark.timeout(180)
async def test_killed_keepers_lose_no_read(
    node: NodeServer, volume: PublishedVolume, tmp_path: Path
) -> None:
    """Keepers killed at random moments of rotations: no read fails, tears or goes back."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    kills: list[float] = []
    with load(tmp_path / "load", readers(volume.target)) as running:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rotate_for_ever, node, volume, running)
            for _ in range(KILLS):
                await trio.sleep(BETWEEN_S + chance.random() * ROTATION_S)
                client = await node.client()
                kills.append(time.monotonic())
                os.kill(client.keeper_pid, signal.SIGKILL)
                await node.next_client(client)
            await trio.sleep(BETWEEN_S)
            nursery.cancel_scope.cancel()
        reports = running.stop()
    print(f"\nseed {seed}, generation {volume.generation}\n{summary(reports, kills)}")
    assert node.keepers == KILLS + 1
    assert not any(report.faults for report in reports), f"{seed} {summary(reports, kills)}"
    assert all(report.begun_around(kill, AROUND_S) > 50 for report in reports for kill in kills)


async def test_killed_keeper_is_given_everything_back(
    node: NodeServer, volume: PublishedVolume
) -> None:
    """Open files keep their generation, slot and uid stay, and rotations go on."""
    await volume.rotate()
    held = os.open(volume.target / "pass", os.O_RDONLY)
    await volume.rotate()
    before = await node.client()
    uid = os.stat(f"/proc/{await volume.worker_pid()}").st_uid
    os.kill(before.keeper_pid, signal.SIGKILL)
    volume.client = await node.next_client(before)
    with open(held, "rb") as file:
        assert file.read() == content("pass", 2)
    [found] = await volume.client.volumes(snapshots=False)
    assert (found.record, found.generation, found.target) == (b"record", 3, str(volume.target))
    assert os.stat(f"/proc/{found.worker_pid}").st_uid == uid
    await volume.rotate()
    for path in LIVE_FILES:
        assert (volume.target / path).read_bytes() == content(path, 4)


async def test_new_node_server_takes_over_unnoticed(
    node: NodeServer, volume: PublishedVolume, keeper_socket: Path
) -> None:
    """A second node server holds everything; the first lets go; then the keeper dies."""
    await volume.rotate()
    with open(volume.target / "user", "rb") as held:
        second = NodeServer(keeper_socket)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.run)
            client = await second.client()
            with trio.fail_after(PATIENCE_S):
                while node.backups:
                    await trio.sleep(RETRY_S)
            os.kill(client.keeper_pid, signal.SIGKILL)
            volume.client = await second.next_client(client)
            assert held.read() == content("user", 2)
            await volume.rotate()
            await volume.unpublish()
            nursery.cancel_scope.cancel()
        second.backups.close()

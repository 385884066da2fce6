"""Keepers that take over from each other under readers, and some that fail to."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING, Final

import pytest
import trio

from harness.keepers import Keepers, serves, upgrade_under_load
from harness.load import load
from harness.nodeservers import NodeServer, follow, summary
from harness.volumes import PublishedVolume, content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from harness.kubelet import KubeletRoot

UPGRADES: Final = 3
MANY: Final = 25


@pytest.fixture
def keepers(tmp_path: Path, kubelet: KubeletRoot) -> Iterator[Keepers]:
    """Run one keeper, and those that a test starts."""
    made = Keepers(tmp_path, kubelet)
    with made.ending():
        first = made.start()
        first.wait_until(lambda: serves(first), "it serves")
        yield made


@pytest.fixture
async def node(keepers: Keepers) -> AsyncIterator[NodeServer]:
    """Be a node server."""
    async with NodeServer.running(keepers.socket) as made:
        yield made


@pytest.fixture
async def volume(node: NodeServer, kubelet: KubeletRoot) -> AsyncIterator[PublishedVolume]:
    """Publish the standard files; the volume is gone at the end."""
    async with node.published(kubelet) as made:
        yield made


@pytest.mark.timeout(180)
async def test_upgrades_lose_no_read(
    keepers: Keepers, node: NodeServer, volume: PublishedVolume, tmp_path: Path
) -> None:
    """Keepers take over one after another amid rotations: no read fails, tears or goes back."""
    chance = random.Random(seed := random.randrange(2**32))
    places = {
        "live": ("live", volume.target / "user"),
        "data": ("pair", volume.target),
        "c": ("c", volume.target / "nest/deep/cert"),
    }
    with load(tmp_path / "load", places) as running:
        moments = await upgrade_under_load(
            keepers, node, volume, running, chance=chance, count=UPGRADES
        )
        reports = running.stop()
    print(f"\nseed {seed}, generation {volume.generation}\n{summary(reports, moments)}")
    assert not any(report.faults for report in reports), f"{seed} {summary(reports, moments)}"


async def test_older_keeper_waits_for_the_lease(
    keepers: Keepers, node: NodeServer, volume: PublishedVolume
) -> None:
    """A keeper that is started again by an older supervisor takes over from nobody alive."""
    older = keepers.start(rank=0)
    older.wait_until(lambda: "waiting for the lease" in older.log, "it waits")
    before = await node.client()
    assert before.keeper_pid == keepers.running[0].pid
    keepers.running[0].kill()
    volume.client = await node.next_client(before)
    assert volume.client.keeper_pid == older.pid
    assert (volume.target / "user").read_bytes() == content("user", 1)


async def test_frozen_successor_is_given_up(
    keepers: Keepers, node: NodeServer, volume: PublishedVolume
) -> None:
    """A successor that stops amid the take-over loses it, and rotations go on."""
    await volume.rotate()
    second = keepers.start()
    second.wait_until(lambda: "a successor takes over" in keepers.running[0].log, "it takes over")
    os.kill(second.pid, signal.SIGSTOP)
    try:
        first = keepers.running[0]
        with trio.fail_after(40):
            while "serves on" not in first.log and not serves(second):
                read = await trio.to_thread.run_sync((volume.target / "user").read_bytes)
                assert read == content("user", 2)
                await trio.sleep(0.05)
    finally:
        os.kill(second.pid, signal.SIGCONT)
    await follow(node, volume)
    volume.client = await node.client()
    await volume.rotate()
    assert (volume.target / "user").read_bytes() == content("user", 3)


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.02, 0.05])
async def test_killed_predecessor_is_survived(
    keepers: Keepers, node: NodeServer, volume: PublishedVolume, delay_s: float
) -> None:
    """A predecessor that dies amid the take-over leaves the volumes to whoever comes next."""
    await volume.rotate()
    before = await node.client()
    second = keepers.start()
    second.wait_until(
        lambda: "a successor takes over" in keepers.running[0].log or serves(second), "it asks"
    )
    await trio.sleep(delay_s)
    keepers.running[0].kill()
    if second.ended(1):
        keepers.start()  # as its supervisor does
    volume.client = await node.next_client(before)
    await follow(node, volume)
    volume.client = await node.client()
    await volume.rotate()
    assert (volume.target / "user").read_bytes() == content("user", 3)


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.02, 0.05])
async def test_killed_successor_is_survived(
    keepers: Keepers, node: NodeServer, volume: PublishedVolume, delay_s: float
) -> None:
    """A successor that dies amid the take-over costs nothing: the predecessor serves on."""
    await volume.rotate()
    second = keepers.start()
    first = keepers.running[0]
    second.wait_until(lambda: "a successor takes over" in first.log, "it asks")
    await trio.sleep(delay_s)
    second.kill()
    if first.ended(1):
        keepers.start()  # it had committed, so that only the node server has everything
    await follow(node, volume)
    volume.client = await node.client()
    await volume.rotate()
    assert (volume.target / "user").read_bytes() == content("user", 3)


async def test_successor_of_another_library_is_refused(
    keepers: Keepers, node: NodeServer, volume: PublishedVolume
) -> None:
    """A keeper whose workers negotiate otherwise takes nothing: the old one's serve on."""
    before = await volume.worker_pid()
    second = keepers.start(module="harness.otherlibrary")
    second.wait_until(lambda: "cannot serve a volume" in second.log, "it finds that out")
    first = keepers.running[0]
    first.wait_until(lambda: "serves on" in first.log, "the first keeper takes the volume back")
    await follow(node, volume)
    volume.client = await node.client()
    assert volume.client.keeper_pid == first.pid
    await volume.rotate()
    assert (volume.target / "user").read_bytes() == content("user", 2)
    assert await volume.worker_pid() == before


async def test_end_without_successor_freezes(
    keepers: Keepers, node: NodeServer, volume: PublishedVolume
) -> None:
    """A keeper that is asked to end, and whom nobody follows, leaves the volumes readable."""
    await volume.rotate()
    before = await node.client()
    keepers.running[0].kill()
    last = keepers.start(patience_s=0.5)
    await node.next_client(before)
    assert (volume.target / "user").read_bytes() == content("user", 2)
    assert await trio.to_thread.run_sync(last.stop) == 0
    assert not node.backups
    assert (volume.target / "user").read_bytes() == content("user", 2)
    again = keepers.start()
    again.wait_until(lambda: serves(again), "it serves")
    await node.client()


@pytest.mark.timeout(120)
async def test_many_volumes_change_hands(
    keepers: Keepers, node: NodeServer, kubelet: KubeletRoot
) -> None:
    """Each of many volumes is handed over, and later given back, with its open file."""
    client = await node.client()
    volumes = [PublishedVolume(client, kubelet.prepared()) for _ in range(MANY)]
    held: list[int] = []
    for volume in volumes:
        await volume.publish()
        held.append(os.open(volume.target / "pass", os.O_RDONLY))
        await volume.rotate()
    second = keepers.start()
    client = await node.next_client(client)
    assert client.keeper_pid == second.pid
    await check_all(volumes, held)
    older = keepers.start(rank=0)
    older.wait_until(lambda: "waiting for the lease" in older.log, "it waits")
    second.kill()
    client = await node.next_client(client)
    assert client.keeper_pid == older.pid
    await check_all(volumes, held)
    for volume, fd in zip(volumes, held, strict=True):
        os.close(fd)
        volume.client = client
        await volume.rotate()
        await volume.unpublish()
        volume.close()


async def check_all(volumes: list[PublishedVolume], held: list[int]) -> None:
    """Read each volume by path, and through what was opened a generation ago."""
    for volume, fd in zip(volumes, held, strict=True):
        read = await trio.to_thread.run_sync((volume.target / "user").read_bytes)
        assert read == content("user", 2)
        assert await trio.to_thread.run_sync(os.pread, fd, 1 << 20, 0) == content("pass", 1)

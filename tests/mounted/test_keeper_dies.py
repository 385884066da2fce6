"""The mount outlives its keeper: killed under readers, started again, given everything back."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING, Final

import pytest
import trio

from harness.keepers import kill_keepers_under_load, supervised_keeper
from harness.load import load
from harness.nodeservers import (
    AROUND_S,
    PATIENCE_S,
    RETRY_S,
    NodeServer,
    summary,
)
from harness.volumes import LIVE_FILES, content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from harness.kubelet import KubeletRoot
    from harness.programs import Program
    from harness.volumes import PublishedVolume

KILLS: Final = 3


@pytest.fixture
def supervised(tmp_path: Path, kubelet: KubeletRoot, keeper_socket: Path) -> Iterator[Program]:
    """Run a keeper under its supervisor."""
    with supervised_keeper(tmp_path, kubelet, keeper_socket) as program:
        yield program


@pytest.fixture
async def node(supervised: Program, keeper_socket: Path) -> AsyncIterator[NodeServer]:
    """Be a node server."""
    assert not supervised.ended()
    async with NodeServer.running(keeper_socket) as made:
        yield made


@pytest.fixture
async def volume(node: NodeServer, kubelet: KubeletRoot) -> AsyncIterator[PublishedVolume]:
    """Publish the standard files; the volume is gone at the end."""
    async with node.published(kubelet) as made:
        yield made


def readers(target: Path) -> dict[str, tuple[str, Path]]:
    """Return two readers in Python and one in C."""
    return {
        "live": ("live", target / "user"),
        "data": ("pair", target),
        "c": ("c", target / "nest/deep/cert"),
    }


@pytest.mark.timeout(180)
async def test_killed_keepers_lose_no_read(
    node: NodeServer, volume: PublishedVolume, tmp_path: Path
) -> None:
    """Keepers killed at random moments of rotations: no read fails, tears or goes back."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    with load(tmp_path / "load", readers(volume.target)) as running:
        kills = await kill_keepers_under_load(node, volume, running, chance, KILLS)
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
        async with NodeServer.running(keeper_socket) as second:
            client = await second.client()
            with trio.fail_after(PATIENCE_S):
                while node.backups:
                    await trio.sleep(RETRY_S)
            os.kill(client.keeper_pid, signal.SIGKILL)
            volume.client = await second.next_client(client)
            assert held.read() == content("user", 2)
            await volume.rotate()
            await volume.unpublish()

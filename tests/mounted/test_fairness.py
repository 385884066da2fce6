"""A pod that abuses its volume harms nobody: neither its worker, nor rotation, nor a neighbour."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from harness.hostilepod import KINDS
from harness.volumes import PublishedVolume, content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fusefs.client import KeeperClient
    from harness.kubelet import KubeletRoot
    from harness.programs import Program

HOSTILE: Final = Path(__file__).parents[1] / "harness" / "hostilepod.py"
ROTATIONS: Final = 20
GROWTH_BYTES: Final = 8 << 20
ROUNDS: Final = 6
READS: Final = 300
PAUSE_S: Final = 0.003
MOST_TIMES_SLOWER: Final = 3.0
FLOODERS: Final = 3
FLOOD_S: Final = 3.0
MOST_OF_A_PROCESSOR: Final = 0.5

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def keeper_command(kubelet: KubeletRoot, keeper_socket: Path) -> list[str]:
    """Run a keeper with the limits that it has by default."""
    return ["fusefs", f"--socket={keeper_socket}", f"--kubelet-root={kubelet.path}"]


@contextmanager
def hostile_pod(kind: str, target: Path) -> Iterator[None]:
    """Run a hostile pod; it is in full swing when this begins, and gone when it ends."""
    command = [sys.executable, str(HOSTILE), kind, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"in full swing\n"
            yield
            assert process.poll() is None, "the hostile pod has ended by itself"
        finally:
            os.killpg(process.pid, 9)


@asynccontextmanager
async def another_volume(
    client: KeeperClient, kubelet: KubeletRoot
) -> AsyncIterator[PublishedVolume]:
    """Publish a second volume."""
    pod_volume = kubelet.volume()
    pod_volume.prepare()
    volume = PublishedVolume(client, pod_volume)
    await volume.publish()
    try:
        yield volume
    finally:
        await volume.unpublish()
        volume.close()


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kind", KINDS)
async def test_hostile_pod_harms_nobody(
    published: PublishedVolume, keeper: Program, kind: str
) -> None:
    """Rotations come in, the worker neither dies nor grows, and nothing of it is left."""
    pid = await published.worker_pid()
    assert pid is not None
    with hostile_pod(kind, published.target):
        before = resident_bytes(pid)
        for _ in range(ROTATIONS):
            await published.rotate()
            now = published.generation
            assert (published.target / "user").read_bytes() == content("user", now)
        assert resident_bytes(pid) - before < GROWTH_BYTES
        assert await published.worker_pid() == pid
    assert "a handler failed" not in keeper.log
    await published.rotate()


async def slowest_reads(target: Path) -> float:
    """Return the 99th percentile of the time that a read of a whole file takes."""
    times = []
    for _ in range(READS):
        began = time.monotonic()
        (target / "user").read_bytes()
        times.append(time.monotonic() - began)
        await trio.sleep(PAUSE_S)
    return statistics.quantiles(times, n=100)[-1]


async def test_flood_is_no_matter_of_the_neighbour(
    published: PublishedVolume, client: KeeperClient, kubelet: KubeletRoot
) -> None:
    """A neighbour's slowest reads take at most three times as long under a flooding pod."""
    async with another_volume(client, kubelet) as neighbour:
        quiet, flooded = [], []
        for _ in range(ROUNDS):
            quiet.append(await slowest_reads(neighbour.target))
            with hostile_pod("flood", published.target):
                flooded.append(await slowest_reads(neighbour.target))
        print(f"p99 in ms: quiet {in_ms(quiet)}, flooded {in_ms(flooded)}")
        assert statistics.median(flooded) <= MOST_TIMES_SLOWER * statistics.median(quiet)


def in_ms(seconds: list[float]) -> list[float]:
    """Return times as a person reads them."""
    return [round(one * 1e3, 2) for one in seconds]


def processor_seconds(pid: int) -> float:
    """Return how much processor time a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_flood_takes_a_share_of_a_processor(published: PublishedVolume) -> None:
    """However many processes of a pod ask, its worker takes no more than it may."""
    pid = await published.worker_pid()
    assert pid is not None
    with ExitStack() as pods:
        for _ in range(FLOODERS):
            pods.enter_context(hostile_pod("flood", published.target))
        taken, began = processor_seconds(pid), time.monotonic()
        await trio.sleep(FLOOD_S)
        share = (processor_seconds(pid) - taken) / (time.monotonic() - began)
    print(f"{share:.2f} of a processor")
    assert share <= MOST_OF_A_PROCESSOR

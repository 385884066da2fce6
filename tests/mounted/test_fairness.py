"""A pod that abuses its volume harms nobody: neither its worker, nor rotation, nor a neighbour."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from harness.hostilepod import KINDS
from harness.neighbours import hostile_pod
from harness.volumes import content

if TYPE_CHECKING:
    from harness.kubelet import KubeletRoot
    from harness.programs import Program
    from harness.volumes import PublishedVolume

ROTATIONS: Final = 20
GROWTH_BYTES: Final = 8 << 20
FLOODERS: Final = 3
FLOOD_S: Final = 3.0
MOST_OF_A_PROCESSOR: Final = 0.5

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def keeper_command(kubelet: KubeletRoot, keeper_socket: Path) -> list[str]:
    """Run a keeper with the limits that it has by default."""
    return ["fusefs", f"--socket={keeper_socket}", f"--kubelet-root={kubelet.path}"]


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

"""Workers that die while their volume is read and rotated."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    import random

    from harness.load import Load
    from harness.volumes import PublishedVolume

ROTATION_S: Final = 0.05
PAUSE_S: Final = 0.6  # between two deaths: a worker that dies younger is replaced later


async def rotate_for_ever(published: PublishedVolume, running: Load) -> None:
    """Rotate at a fixed pace; acknowledge to the readers; check sizes right after."""
    while True:
        began = trio.current_time()
        generation = await published.rotate()
        running.acknowledge(generation)
        assert published.snapshot is not None
        for entry in published.snapshot.entries():
            assert (published.target / entry.path).stat().st_size == entry.size
        await trio.sleep(max(0.0, began + ROTATION_S - trio.current_time()))


async def kill_worker(published: PublishedVolume) -> float:
    """Kill the worker that serves now and return when."""
    with trio.fail_after(5):
        while (pid := await published.worker_pid()) is None:
            await trio.sleep(0.001)
    moment = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return moment


async def kill_under_load(
    published: PublishedVolume, running: Load, chance: random.Random, count: int
) -> list[float]:
    """Kill workers at random moments of rotations; return when."""
    kills: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rotate_for_ever, published, running)
        for _ in range(count):
            await trio.sleep(PAUSE_S + chance.random() * ROTATION_S)
            kills.append(await kill_worker(published))
        await trio.sleep(PAUSE_S)
        nursery.cancel_scope.cancel()
    return kills

"""The keepers of one node: one that dies under its supervisor, or one after another."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from fusefs.supervisor import EXIT_HANDED_OVER, STABLE_S
from harness.nodeservers import ROTATION_S, NodeServer, rotate_for_ever
from harness.programs import WITH_HARNESS, Program

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from harness.kubelet import KubeletRoot
    from harness.load import Load
    from harness.volumes import PublishedVolume

BETWEEN_DEATHS_S: Final = STABLE_S + 0.3  # a keeper that dies younger is started later
BETWEEN_UPGRADES_S: Final = 0.5
READY_S: Final = 20.0


@contextmanager
def supervised_keeper(directory: Path, kubelet: KubeletRoot, socket: Path) -> Iterator[Program]:
    """Run a keeper under its supervisor."""
    arguments = ["fusefs", "--socket", str(socket), "--kubelet-root", str(kubelet.path)]
    log = directory / "keeper.log"
    with Program("keeper", [*arguments, "--supervise"], log=log) as program:
        program.wait_until(socket.exists, "the control socket is there")
        yield program


async def kill_keepers_under_load(
    node: NodeServer, volume: PublishedVolume, running: Load, chance: random.Random, count: int
) -> list[float]:
    """Kill keepers at random moments of rotations; return when."""
    kills: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rotate_for_ever, node, volume, running)
        for _ in range(count):
            await trio.sleep(BETWEEN_DEATHS_S + chance.random() * ROTATION_S)
            client = await node.client()
            kills.append(time.monotonic())
            os.kill(client.keeper_pid, signal.SIGKILL)
            await node.next_client(client)
        await trio.sleep(BETWEEN_DEATHS_S)
        nursery.cancel_scope.cancel()
    return kills


class Keepers:
    """The keepers of one node; each has a rank of its own."""

    def __init__(self, directory: Path, kubelet: KubeletRoot) -> None:
        self.socket = directory / "keeper" / "keeper.sock"
        self._directory = directory
        self._kubelet = kubelet
        self.running: list[Program] = []

    def start(
        self, *, rank: int | None = None, patience_s: float = 30.0, module: str = "fusefs"
    ) -> Program:
        """Start one more, of this module; it takes over by itself."""
        number = len(self.running) + 1
        program = Program(
            f"keeper {number}",
            [
                *(module, "--socket", str(self.socket)),
                *("--kubelet-root", str(self._kubelet.path)),
                *("--rank", str(number if rank is None else rank)),
                *("--successor-patience", str(patience_s)),
            ],
            log=self._directory / f"keeper-{number}.log",
            environment=WITH_HARNESS,
        )
        self.running.append(program)
        return program

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End all in the end."""
        try:
            yield
        finally:
            for program in self.running:
                program.kill()


def serves(program: Program) -> bool:
    """Return whether a keeper has said that it serves."""
    return "the keeper serves" in program.log


async def upgrade_under_load(
    keepers: Keepers,
    node: NodeServer,
    volume: PublishedVolume,
    running: Load,
    *,
    chance: random.Random,
    count: int,
) -> list[float]:
    """Let keepers take over from each other at random moments of rotations; return when."""
    moments: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rotate_for_ever, node, volume, running)
        for _ in range(count):
            await trio.sleep(BETWEEN_UPGRADES_S + chance.random() * ROTATION_S)
            before, after = keepers.running[-1], keepers.start()
            with trio.fail_after(READY_S):
                while not serves(after):
                    await trio.sleep(0.005)
            moments.append(time.monotonic())
            assert before.ended(10)
            assert before.stop() == EXIT_HANDED_OVER, before.log
        await trio.sleep(BETWEEN_UPGRADES_S)
        nursery.cancel_scope.cancel()
    return moments

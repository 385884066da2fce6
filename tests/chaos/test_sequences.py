"""Random sequences of requests and failures: after each step all is read as a model says."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from typing import TYPE_CHECKING, Final

import attrs
import hypothesis
import pytest
import trio
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from fusefs.supervisor import EXIT_HANDED_OVER
from harness.belongings import FUSE, children, descriptors
from harness.nodeservers import NodeServer
from harness.outcomes import Outcome
from harness.volumes import LIVE_FILES, PublishedVolume, content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fusefs.client import KeeperClient
    from harness.kubelet import KubeletRoot
    from harness.programs import Program

    Enter = Callable[[Outcome], None]

SEED: Final = int(os.environ.get("CHAOS_SEED", random.randrange(2**32)))
EXAMPLES: Final = 40
VOLUMES: Final = 3
GONE_S: Final = 10.0
STEPS: Final = (
    *("publish", "publish", "rotate", "rotate", "rotate", "hold", "unmount", "unpublish"),
    *("kill worker", "crash worker", "kill keeper", "upgrade keeper", "restart node server"),
)
SIGNALS: Final = {"kill worker": signal.SIGKILL, "crash worker": signal.SIGSEGV}

pytestmark = pytest.mark.timeout(400)


@attrs.define
class World:
    """A node, and what is to be seen on it.

    Attributes:
        volumes: The published ones, by number.
        held: Open files, with what they must read.
        runs: How many sequences there were.
        keepers: How many keepers have been upgraded.
    """

    keeper: Program
    directory: Path
    socket: Path
    kubelet: KubeletRoot
    volumes: dict[int, PublishedVolume] = attrs.field(factory=dict)
    held: list[tuple[int, int, bytes]] = attrs.field(factory=list)
    runs: int = 0
    reads: int = 0
    keepers: int = 0

    async def run(self, steps: list[tuple[str, int]]) -> None:
        """Take the steps, and then everything away."""
        left = iter(steps)
        while not await self._run_node_server(left):
            pass
        assert not self.kubelet.mounts()
        assert not list((self.kubelet.path / "pods").iterdir())
        with trio.fail_after(GONE_S):
            while children(self.keeper.pid) or descriptors(self.keeper.pid, FUSE):
                await trio.sleep(0.01)
        assert descriptors(os.getpid(), FUSE) == 0

    async def _run_node_server(self, steps: Iterator[tuple[str, int]]) -> bool:
        """Take steps until the node server shall be another one; return whether all are taken."""
        async with NodeServer.running(self.socket) as node:
            await self.see(node)
            for step, number in steps:
                if step == "restart node server":
                    return False
                await self._take(node, step, number)
                await self.see(node)
            for number in list(self.volumes):
                await self._take(node, "unpublish", number)
        return True

    async def _take(self, node: NodeServer, step: str, number: int) -> None:
        volume = self.volumes.get(number)
        match step:
            case "kill keeper":
                await self._kill_keeper(node)
            case "upgrade keeper":
                await self._upgrade(node)
            case "publish":
                await self._publish(await node.client(), number)
            case _ if volume is None:
                return
            case "rotate":
                await volume.rotate()
            case "hold":
                path = LIVE_FILES[len(self.held) % len(LIVE_FILES)]
                fd = os.open(volume.target / path, os.O_RDONLY)
                self.held.append((number, fd, content(path, volume.generation)))
            case "unmount":
                await trio.run_process(["umount", "--lazy", str(volume.target)])
                await self._publish(await node.client(), number)
            case "unpublish":
                await self._unpublish(number)
            case _ if step in SIGNALS:
                await send(volume, SIGNALS[step])

    async def _publish(self, client: KeeperClient, number: int) -> None:
        """Publish a volume; one that is published already keeps its content."""
        known = self.volumes.get(number)
        volume = PublishedVolume(client, known.volume if known else self.kubelet.prepared())
        await volume.publish()
        if known is None:
            self.volumes[number] = volume
        else:
            volume.close()

    async def _unpublish(self, number: int) -> None:
        volume = self.volumes.pop(number)
        await volume.unpublish()
        volume.close()
        volume.volume.remove()
        for entry in [entry for entry in self.held if entry[0] == number]:
            os.close(entry[1])
            self.held.remove(entry)

    async def _kill_keeper(self, node: NodeServer) -> None:
        before = await node.client()
        self.keeper.kill()
        self.keeper.restart()
        await node.next_client(before)

    async def _upgrade(self, node: NodeServer) -> None:
        before, client = self.keeper, await node.client()
        self.keepers += 1
        self.keeper = before.twin(log=self.directory / f"keeper-{self.keepers}.log")
        await node.next_client(client)
        assert before.ended(GONE_S)
        assert before.stop() == EXIT_HANDED_OVER, before.log

    async def see(self, node: NodeServer) -> None:
        """Read everything, and compare it with what must be there."""
        client = await node.client()
        for volume in self.volumes.values():
            volume.client = client
            for path in LIVE_FILES:
                expected = content(path, volume.generation)
                assert (volume.target / path).read_bytes() == expected
                assert (volume.target / "..data" / path).read_bytes() == expected
                self.reads += 2
        for _, fd, expected in self.held:
            assert os.pread(fd, len(expected) + 1, 0) == expected
            self.reads += 1


async def send(volume: PublishedVolume, number: signal.Signals) -> None:
    """Send a signal to the worker of a volume, if it has one."""
    if (pid := await volume.worker_pid()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def test_random_sequences(
    keeper: Program, keeper_socket: Path, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """Whatever comes after whatever, every path and every open file reads right."""
    world = World(keeper=keeper, directory=tmp_path, socket=keeper_socket, kubelet=kubelet)

    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # to make a failing sequence shorter takes as long again
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(
        st.lists(
            st.tuples(st.sampled_from(STEPS), st.integers(0, VOLUMES - 1)), min_size=8, max_size=20
        )
    )
    def run(steps: list[tuple[str, int]]) -> None:
        world.runs += 1
        trio.run(world.run, steps)

    try:
        run()
    finally:
        if world.keeper is not keeper:
            world.keeper.stop()
        enter(Outcome(scenario=f"sequences, CHAOS_SEED={SEED}", runs=world.runs, reads=world.reads))

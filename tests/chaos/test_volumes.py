"""Volumes that come and go, are published often, and are treated badly by pods and the node."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING, Final

import pytest
import trio

from harness.belongings import belongings, leaked
from harness.churn import Churn, publish_often
from harness.deaths import rotate_for_ever
from harness.neighbours import MOST_TIMES_SLOWER, hostile_pod, slowest_reads
from harness.outcomes import Outcome, outcome_of
from harness.readers import read_volume
from harness.volumes import published_volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fusefs.client import KeeperClient
    from harness.kubelet import KubeletRoot
    from harness.programs import Program

    Enter = Callable[[Outcome], None]

PUBLISHES: Final = 1000
VOLUMES: Final = 200
ROTATIONS: Final = 1000
ROUNDS: Final = 6
DROPS: Final = 20

pytestmark = pytest.mark.timeout(300)


async def test_publishes_of_one_target_are_one_mount(
    keeper: Program, client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """A thousand publishes of a volume, unmounted by somebody at times, are one mount."""
    before = belongings(tmp_path, [keeper.pid])
    async with published_volume(client, kubelet) as volume:
        await publish_often(volume, kubelet, PUBLISHES)
    leaks = await leaked(before, lambda: belongings(tmp_path, [keeper.pid]))
    enter(Outcome(scenario="published again", runs=PUBLISHES, leaks=leaks))
    assert not leaks


async def test_volumes_in_random_order_leave_nothing(
    keeper: Program, keeper_socket: Path, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """Two hundred volumes come and go while workers and keepers are killed: nothing is left."""
    print(f"seed {(seed := random.randrange(2**32))}")
    before = belongings(tmp_path, [keeper.pid])
    churn = Churn(keeper, keeper_socket, kubelet, seed, volumes=VOLUMES)
    await churn.run()
    leaks = await leaked(before, lambda: belongings(tmp_path, [keeper.pid]))
    enter(Outcome(scenario="volumes in any order, kills", runs=VOLUMES, leaks=leaks))
    assert not leaks
    assert not list((kubelet.path / "pods").iterdir())


async def test_rotations_leave_nothing(
    keeper: Program, client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """A thousand rotations under readers: no read fails, and nothing is kept of a generation."""
    before = belongings(tmp_path, [keeper.pid])
    async with read_volume(client, kubelet, tmp_path) as (volume, running):
        for _ in range(ROTATIONS):
            running.acknowledge(await volume.rotate())
        reports = running.stop()
    leaks = await leaked(before, lambda: belongings(tmp_path, [keeper.pid]))
    outcome = outcome_of("rotated, as fast as it goes", ROTATIONS, reports, leaks=leaks)
    enter(outcome)
    assert (outcome.failed, outcome.torn, outcome.leaks) == ({}, 0, [])


async def test_dropped_caches_fail_no_read(
    keeper: Program, client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """The kernel forgets all that it does not use, amid rotations: no read fails or tears."""
    before = belongings(tmp_path, [keeper.pid])
    async with read_volume(client, kubelet, tmp_path) as (volume, running):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rotate_for_ever, volume, running)
            for _ in range(DROPS):
                await trio.run_process(["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"])
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        reports = running.stop()
    leaks = await leaked(before, lambda: belongings(tmp_path, [keeper.pid]))
    outcome = outcome_of("caches dropped", DROPS, reports, leaks=leaks)
    enter(outcome)
    assert (outcome.failed, outcome.torn, outcome.leaks) == ({}, 0, [])


class TestNeighbours:
    """Volumes with the limits that they have by default."""

    @pytest.fixture
    def keeper_command(self, kubelet: KubeletRoot, keeper_socket: Path) -> list[str]:
        """Run a keeper with these limits."""
        return ["fusefs", f"--socket={keeper_socket}", f"--kubelet-root={kubelet.path}"]

    async def test_flood_is_no_matter_of_the_neighbour(
        self, keeper: Program, client: KeeperClient, kubelet: KubeletRoot, enter: Enter
    ) -> None:
        """A neighbour's slowest reads take at most three times as long under a flooding pod."""
        assert not keeper.ended()
        quiet, flooded = [], []
        async with (
            published_volume(client, kubelet) as flood,
            published_volume(client, kubelet) as neighbour,
        ):
            for _ in range(ROUNDS):
                quiet.append(await slowest_reads(neighbour.target))
                with hostile_pod("flood", flood.target):
                    flooded.append(await slowest_reads(neighbour.target))
        enter(Outcome(scenario="quiet neighbour, p99 of reads", runs=ROUNDS, stalls=quiet))
        enter(Outcome(scenario="neighbour of a flood, the same", runs=ROUNDS, stalls=flooded))
        assert statistics.median(flooded) <= MOST_TIMES_SLOWER * statistics.median(quiet)

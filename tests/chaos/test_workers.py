"""Workers that die, hang or cannot start, while their volume is read."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Final

import pytest
import trio

from harness.belongings import belongings, family, leaked
from harness.deaths import PAUSE_S, kill_under_load, kill_worker, rotate_for_ever
from harness.outcomes import Outcome, outcome_of, stalls
from harness.readers import read_volume
from harness.trouble import REPLACED_S, TROUBLE, replaced_after, state
from harness.volumes import PublishedVolume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fusefs.client import KeeperClient
    from harness.kubelet import KubeletRoot
    from harness.programs import Program

    Enter = Callable[[Outcome], None]

KILLS: Final = 100
STALL_S: Final = 0.1
DOUBLE_KILLS: Final = 30
LOOPS: Final = 2
LOOP_S: Final = 3.0
LOOP_STALL_S: Final = LOOP_S + 5.0
TROUBLES: Final = 3

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("takeover", ["resend", "journal"])
async def test_killed_workers_lose_no_read(
    *,
    keeper: Program,
    client: KeeperClient,
    kubelet: KubeletRoot,
    tmp_path: Path,
    takeover: str,
    enter: Enter,
) -> None:
    """A hundred workers killed amid rotations: no read fails or tears, and none waits for long."""
    print(f"seed {(seed := random.randrange(2**32))}")
    before = belongings(tmp_path, [keeper.pid])
    async with read_volume(client, kubelet, tmp_path) as (volume, running):
        kills = await kill_under_load(volume, running, random.Random(seed), KILLS)
        reports = running.stop()
    outcome = outcome_of(
        f"worker killed, {takeover}",
        len(kills),
        reports,
        stalls=stalls(reports, kills, before_s=0.0, after_s=PAUSE_S / 2),
        leaks=await leaked(before, lambda: belongings(tmp_path, [keeper.pid])),
    )
    enter(outcome)
    assert (outcome.failed, outcome.torn, outcome.leaks) == ({}, 0, [])
    assert outcome.stall_p99 < STALL_S


async def test_killed_successors_lose_no_read(
    keeper: Program, client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """A worker is killed, and its successor at any step of taking over, up to the first reads."""
    print(f"seed {(seed := random.randrange(2**32))}")
    chance = random.Random(seed)
    before = belongings(tmp_path, [keeper.pid])
    kills: list[float] = []
    async with read_volume(client, kubelet, tmp_path) as (volume, running):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rotate_for_ever, volume, running)
            for _ in range(DOUBLE_KILLS):
                await trio.sleep(PAUSE_S + chance.random() * 0.05)
                kills.append(await kill_worker(volume))
                await trio.sleep(chance.random() * 0.03)
                for pid in family(keeper.pid)[1:]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            await trio.sleep(PAUSE_S)
            nursery.cancel_scope.cancel()
        reports = running.stop()
    outcome = outcome_of(
        "successor killed taking over",
        len(kills),
        reports,
        stalls=stalls(reports, kills, before_s=0.0, after_s=PAUSE_S),
        leaks=await leaked(before, lambda: belongings(tmp_path, [keeper.pid])),
    )
    enter(outcome)
    assert (outcome.failed, outcome.torn, outcome.leaks) == ({}, 0, [])
    assert max(outcome.stalls) < 1.0


async def test_crash_loop_ends_with_its_cause(
    keeper: Program, client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """While no worker lives readers wait, without an error, and then they are served again."""
    before = belongings(tmp_path, [keeper.pid])
    begun: list[float] = []
    async with read_volume(client, kubelet, tmp_path) as (volume, running):
        for _ in range(LOOPS):
            begun.append(time.monotonic())
            with trio.move_on_after(LOOP_S):
                while True:
                    if (pid := await volume.worker_pid()) is not None:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    await trio.sleep(0.005)
            with trio.fail_after(LOOP_STALL_S):
                running.acknowledge(await volume.rotate())
            await trio.sleep(PAUSE_S)
        reports = running.stop()
    outcome = outcome_of(
        f"worker killed for {LOOP_S:g} s",
        LOOPS,
        reports,
        stalls=stalls(reports, begun, before_s=0.0, after_s=LOOP_STALL_S),
        leaks=await leaked(before, lambda: belongings(tmp_path, [keeper.pid])),
    )
    enter(outcome)
    assert (outcome.failed, outcome.torn, outcome.leaks) == ({}, 0, [])
    assert max(outcome.stalls) < LOOP_STALL_S


class TestTrouble:
    """Workers that do not simply die."""

    @pytest.fixture
    def keeper_command(self, kubelet: KubeletRoot, keeper_socket: Path) -> list[str]:
        """Run the keeper whose workers can be made to hang."""
        return ["harness.misbehaving", str(keeper_socket), str(kubelet.path)]

    @pytest.mark.parametrize("kind", TROUBLE)
    async def test_worker_in_trouble_is_replaced(
        self,
        *,
        keeper: Program,
        client: KeeperClient,
        kubelet: KubeletRoot,
        tmp_path: Path,
        kind: str,
        enter: Enter,
    ) -> None:
        """A look-up that came too late is answered, and no process is left stuck in the kernel."""
        before = belongings(tmp_path, [keeper.pid])
        volume = PublishedVolume(client, kubelet.prepared())
        await volume.publish()
        waits = [await replaced_after(volume, TROUBLE[kind]) for _ in range(TROUBLES)]
        stuck = [f"{pid} in D" for pid in family(keeper.pid) if state(pid) == "D"]
        await volume.unpublish()
        volume.close()
        leaks = await leaked(before, lambda: belongings(tmp_path, [keeper.pid]))
        outcome = Outcome(
            scenario=f"worker {kind}, look-up waits",
            runs=TROUBLES,
            reads=TROUBLES,
            stalls=waits,
            leaks=[*stuck, *leaks],
        )
        enter(outcome)
        assert not outcome.leaks
        assert max(outcome.stalls) < REPLACED_S

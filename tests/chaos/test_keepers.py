"""Keepers that die, are upgraded, or go without a successor, while a volume is read."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

import pytest
import trio

from fusefs.client import connect
from harness.belongings import belongings, leaked
from harness.frozen import ANOTHER_UID, NEW_NAMESPACE, connection_of, freeze, holders, look
from harness.keepers import (
    Keepers,
    kill_keepers_under_load,
    serves,
    supervised_keeper,
    upgrade_under_load,
)
from harness.load import load
from harness.nodeservers import AROUND_S, NodeServer
from harness.outcomes import Outcome, outcome_of, stalls
from harness.readers import four_readers, read_volume
from harness.volumes import PublishedVolume, bind_file, content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.kubelet import KubeletRoot
    from harness.load import Report
    from harness.programs import Program

    Enter = Callable[[Outcome], None]

KILLS: Final = 30
KILL_STALL_S: Final = 2.0
UPGRADES: Final = 10
UPGRADE_STALL_S: Final = 0.2
FREEZES: Final = 5
READ_S: Final = 0.5
DEATHS_OF_BOTH: Final = 5
REPAIR_S: Final = 10.0

pytestmark = pytest.mark.timeout(300)


async def test_killed_keepers_lose_no_read(
    kubelet: KubeletRoot, keeper_socket: Path, tmp_path: Path, enter: Enter
) -> None:
    """Keepers killed amid rotations take their workers with them: no read fails or tears."""
    print(f"seed {(seed := random.randrange(2**32))}")
    with supervised_keeper(tmp_path, kubelet, keeper_socket) as program:
        async with NodeServer.running(keeper_socket) as node:
            client = await node.client()
            before = belongings(tmp_path, [program.pid])
            async with read_volume(client, kubelet, tmp_path) as (volume, running):
                kills = await kill_keepers_under_load(
                    node, volume, running, random.Random(seed), KILLS
                )
                reports = running.stop()
                volume.client = await node.client()
            outcome = outcome_of(
                "keeper killed",
                len(kills),
                reports,
                stalls=stalls(reports, kills, before_s=0.0, after_s=AROUND_S),
                leaks=await leaked(before, lambda: belongings(tmp_path, [program.pid])),
            )
    enter(outcome)
    assert (outcome.failed, outcome.torn, outcome.leaks) == ({}, 0, [])
    assert outcome.stall_p99 < KILL_STALL_S


async def test_upgraded_keepers_lose_no_read(
    kubelet: KubeletRoot, keeper_socket: Path, tmp_path: Path, enter: Enter
) -> None:
    """Keepers take over from each other amid rotations: no read fails, none waits for long."""
    print(f"seed {(seed := random.randrange(2**32))}")
    keepers = Keepers(tmp_path, kubelet)
    assert keepers.socket == keeper_socket
    with keepers.ending():
        first = keepers.start()
        first.wait_until(lambda: serves(first), "it serves")
        async with NodeServer.running(keeper_socket) as node:
            client = await node.client()
            before = belongings(tmp_path, [first.pid])
            async with read_volume(client, kubelet, tmp_path) as (volume, running):
                moments = await upgrade_under_load(
                    keepers, node, volume, running, chance=random.Random(seed), count=UPGRADES
                )
                reports = running.stop()
                volume.client = await node.client()
            last = keepers.running[-1].pid
            outcome = outcome_of(
                "keeper upgraded",
                len(moments),
                reports,
                stalls=stalls(reports, moments, before_s=AROUND_S, after_s=AROUND_S),
                leaks=await leaked(before, lambda: belongings(tmp_path, [last])),
            )
    enter(outcome)
    assert (outcome.failed, outcome.torn, outcome.leaks) == ({}, 0, [])
    assert outcome.stall_p99 < UPGRADE_STALL_S


async def test_frozen_volumes_are_read_and_repaired(
    keeper: Program, keeper_socket: Path, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """A volume frozen under readers is held by nobody and reads as before; a publish repairs it."""
    before = belongings(tmp_path, [keeper.pid])
    reports: list[Report] = []
    waits: list[float] = []
    for number in range(FREEZES):
        (directory := tmp_path / str(number)).mkdir()
        async with connect(str(keeper_socket)) as client:
            volume = PublishedVolume(client, kubelet.prepared())
            await volume.publish()
            await volume.rotate()
            seen, connection = look(volume.target), connection_of(kubelet)
            with (
                bind_file(volume.target / "pass", directory / "bound") as bound,
                load(directory / "load", four_readers(volume.target, bound)) as running,
            ):
                await trio.sleep(READ_S)
                moment = time.monotonic()
                await freeze(keeper)
                assert not holders(connection)
                await trio.sleep(READ_S)
                found = running.stop()
        for prefix in ((), ANOTHER_UID, NEW_NAMESPACE):
            assert look(volume.target, prefix) == seen
        reports += found
        waits += stalls(found, [moment], before_s=READ_S, after_s=READ_S)
        await start_and_repair(volume, keeper, keeper_socket)
    outcome = outcome_of(
        "frozen, and repaired",
        FREEZES,
        reports,
        stalls=waits,
        leaks=await leaked(before, lambda: belongings(tmp_path, [keeper.pid])),
    )
    enter(outcome)
    assert (outcome.failed, outcome.torn, outcome.leaks) == ({}, 0, [])


async def test_dead_mounts_are_repaired(
    keeper: Program, keeper_socket: Path, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """When keeper and node server die at once reads fail, but do not hang, until a publish."""
    before = belongings(tmp_path, [keeper.pid])
    waits = []
    for _ in range(DEATHS_OF_BOTH):
        async with connect(str(keeper_socket)) as client:
            volume = PublishedVolume(client, kubelet.prepared())
            await volume.publish()
        keeper.kill()
        keeper_socket.unlink()
        with pytest.raises(OSError, match=r"not connected|abort"):
            (volume.target / "user").read_bytes()
        waits.append(await start_and_repair(volume, keeper, keeper_socket))
    outcome = Outcome(
        scenario="both dead, start and repair",
        runs=DEATHS_OF_BOTH,
        stalls=waits,
        leaks=await leaked(before, lambda: belongings(tmp_path, [keeper.pid])),
    )
    enter(outcome)
    assert not outcome.leaks
    assert max(waits) < REPAIR_S


async def start_and_repair(volume: PublishedVolume, keeper: Program, socket: Path) -> float:
    """Start a keeper, publish the volume again and take it away; return how long it was dead."""
    began = time.monotonic()
    keeper.restart()
    keeper.wait_until(socket.exists, "the control socket is there again")
    async with connect(str(socket)) as client:
        volume.client = client
        volume.close()
        await volume.publish()
        assert (volume.target / "user").read_bytes() == content("user", 1)
        took = time.monotonic() - began
        await volume.unpublish()
    volume.close()
    volume.volume.remove()
    return took

"""Torn-read hunt: every path under rotation, and under the death of workers."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING, Final

import pytest
import trio

from harness.deaths import kill_under_load, kill_worker, rotate_for_ever
from harness.load import load, summary
from harness.volumes import bind_file, content, snapshots_held, specs

if TYPE_CHECKING:
    from pathlib import Path

    from harness.load import Report
    from harness.volumes import PublishedVolume

HUNT_S: Final = 30.0
KILLS: Final = 25
BUSY_READS: Final = 500
ROUNDS: Final = 4
AROUND_S: Final = 0.2


def readers(published: PublishedVolume, bound: Path) -> dict[str, tuple[str, Path]]:
    """Return a reader for each path into a volume, one of them in C."""
    return {
        "live": ("live", published.target / "user"),
        "bind": ("live", bound),
        "data": ("pair", published.target),
        "c": ("c", published.target / "nest/deep/cert"),
    }


@pytest.mark.timeout(120)
async def test_no_read_is_torn_or_stale(published: PublishedVolume, tmp_path: Path) -> None:
    """Under a rotation every 50 ms each read is of one version, and not of an older one."""
    with (
        bind_file(published.target / "pass", tmp_path / "bound") as bound,
        load(tmp_path / "load", readers(published, bound)) as running,
    ):
        with trio.move_on_after(HUNT_S):
            await rotate_for_ever(published, running)
        reports = running.stop()
    print(f"\n{published.generation - 1} rotations in {HUNT_S:.0f} s\n{summary(reports)}")
    assert not any(report.faults for report in reports), summary(reports)
    assert all(len(report.begun) > 1000 for report in reports), summary(reports)


@pytest.mark.parametrize("takeover", ["resend", "journal"])
@pytest.mark.timeout(240)
async def test_killed_workers_lose_no_read(published: PublishedVolume, tmp_path: Path) -> None:
    """Workers killed at random moments under load: no read fails, tears or goes back.

    A kill counts only amid so many reads that a lost one would show; a busy machine gets more
    rounds to bring enough of them together.
    """
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    around: list[int] = []
    for number in range(ROUNDS):
        left = KILLS - sum(count >= BUSY_READS for count in around)
        if left <= 0:
            break
        reports, kills = await kill_in_round(published, tmp_path / f"load{number}", chance, left)
        around += [sum(report.begun_around(kill, AROUND_S) for report in reports) for kill in kills]
        print(f"\nseed {seed}, {left} kills\n{summary(reports)}")
        assert not any(report.faults for report in reports), f"seed {seed}\n{summary(reports)}"
    print(f"reads begun around each kill: {sorted(around)}")
    assert sum(count >= BUSY_READS for count in around) >= KILLS, f"{sorted(around)}"


async def kill_in_round(
    published: PublishedVolume, directory: Path, chance: random.Random, count: int
) -> tuple[list[Report], list[float]]:
    """Kill workers under readers and rotations; return what the readers saw, and when."""
    directory.mkdir()
    with (
        bind_file(published.target / "pass", directory / "bound") as bound,
        load(directory / "load", readers(published, bound)) as running,
    ):
        kills = await kill_under_load(published, running, chance, count)
        return running.stop(), kills


SETS: Final = (
    ("user", "pass", "nest/deep/cert"),
    ("user", "pass", "other/cert", "late"),
    ("user", "pass", "nest"),
)


@pytest.mark.timeout(120)
async def test_names_change_under_killed_workers(
    published: PublishedVolume, tmp_path: Path
) -> None:
    """Names come and go, files become directories, workers die: what stays never disappears."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    places = {"live": ("live", published.target / "user"), "data": ("pair", published.target)}
    listing = {"list": ("list", published.target)}
    with load(tmp_path / "load", {**places, **listing}) as running:
        for number in range(2, 122):
            paths = SETS[number % len(SETS)]
            async with trio.open_nursery() as nursery:
                if number % 4 == 0:
                    nursery.start_soon(kill_worker_after, published, chance.random() * 0.02)
                running.acknowledge(await published.rotate(specs(number, paths)))
            assert set(os.listdir(published.target / "..data")) == {
                path.partition("/")[0] for path in paths
            }
            for path in paths:
                assert (published.target / path).read_bytes() == content(path, number), seed
        reports = running.stop()
    assert not any(report.faults for report in reports), f"seed {seed}\n{summary(reports)}"


async def kill_worker_after(published: PublishedVolume, seconds: float) -> None:
    """Kill the worker at a moment of a rotation that chance has chosen."""
    await trio.sleep(seconds)
    await kill_worker(published)


async def test_unused_generations_are_let_go(published: PublishedVolume, tmp_path: Path) -> None:
    """After a kill and a burst of rotations under readers, only what is in use is still kept."""
    assert (published.target / "user").read_bytes() == content("user", 1)
    os.statvfs(published.target)  # is answered after the release
    await kill_worker(published)
    places = {"live": ("live", published.target / "user"), "data": ("pair", published.target)}
    with load(tmp_path / "load", places) as running:
        for _ in range(60):
            running.acknowledge(await published.rotate())
        running.stop()
    held = os.open(published.target / "..data/pass", os.O_RDONLY)
    pinned = published.generation
    await published.rotate()
    await published.rotate()
    pid = await published.worker_pid()
    with trio.fail_after(30):
        while snapshots_held(pid) > 2:
            await trio.sleep(0.2)
    with open(held, "rb") as file:
        assert file.read() == content("pass", pinned)


async def test_target_is_never_writable(published: PublishedVolume) -> None:
    """A write through the target fails with EROFS at every moment of a rotation."""
    outcomes: dict[str, int] = {}
    stop = False

    def write_for_ever() -> None:
        while not stop:
            try:
                os.close(os.open(published.target / "user", os.O_WRONLY))
                outcomes["written"] = outcomes.get("written", 0) + 1
            except OSError as error:
                name = errno.errorcode[error.errno or 0]
                outcomes[name] = outcomes.get(name, 0) + 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, write_for_ever)
        for _ in range(100):
            await published.rotate()
        stop = True
    assert outcomes.keys() == {"EROFS"}
    assert outcomes["EROFS"] > 100

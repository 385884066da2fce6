"""The schedule by itself; the state machine over it is in tests/stateful."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.records import VolumeId
from csi.schedule import NEVER, Schedule, backoff

A, B = VolumeId("a"), VolumeId("b")


@given(st.integers(1, 100), st.floats(0.01, 1e6))
def test_backoff_grows_within_its_limits(failures: int, interval: float) -> None:
    """Delays never shrink, never fall below the interval, and stop growing."""
    delay = backoff(failures, interval)
    assert delay <= backoff(failures + 1, interval)
    assert interval <= delay <= max(interval, min(600.0, 30 * interval))


@pytest.mark.parametrize(
    ("interval", "delays"),
    [
        (1.0, [1, 2, 4, 8, 16, 30, 30]),
        (120.0, [120, 240, 480, 600, 600, 600, 600]),
        (3600.0, [3600] * 7),
    ],
)
def test_backoff_doubles_up_to_the_limit(interval: float, delays: list[float]) -> None:
    """Ten minutes, or thirty intervals if that is less, but at least the interval."""
    assert [backoff(failures, interval) for failures in range(1, 8)] == delays


def test_empty_schedule_is_never_due() -> None:
    """Without volumes there is nothing to wake up for."""
    schedule = Schedule(node="n", jitter=0.1)
    assert (schedule.next_due(), schedule.take_due(1e9)) == (NEVER, [])


def test_running_refresh_is_not_taken_again() -> None:
    """A slow refresh is skipped by the next tick instead of being started twice."""
    schedule = Schedule(node="n", jitter=0)
    schedule.add(A, "group", 10, now=0)
    assert schedule.take_due(10) == [A]
    assert schedule.take_due(20) == []
    schedule.succeeded(A, 10, now=25)
    assert schedule.take_due(30) == [A]


def test_slow_failure_is_not_followed_at_once() -> None:
    """A failure that took longer than its delay waits from its end."""
    schedule = Schedule(node="n", jitter=0)
    schedule.add(A, "group", 10, now=0)
    schedule.take_due(10)
    schedule.failed(A, now=70)
    assert schedule.take_due(79) == []
    assert schedule.take_due(80) == [A]


def test_volumes_that_fail_together_retry_together() -> None:
    """Failures a moment apart in one tick are tried again in one tick, jitter and all."""
    schedule = Schedule(node="n", jitter=0.5)
    for volume in (A, B):
        schedule.add(volume, "group", 10, now=0)
    tick = schedule.next_due()
    schedule.take_due(tick)
    schedule.failed(A, now=tick + 0.1)
    schedule.failed(B, now=tick + 0.7)
    retries: list[tuple[float, VolumeId]] = []
    while len(retries) < 2:
        moment = schedule.next_due()
        retries += [(moment, volume) for volume in schedule.take_due(moment)]
    assert [volume for _, volume in retries] == [A, B]
    assert retries[0][0] == retries[1][0]


def test_shorter_interval_counts_at_once() -> None:
    """A class edited from an hour to a minute does not wait for the hour."""
    schedule = Schedule(node="n", jitter=0)
    schedule.add(A, "group", 3600, now=0)
    schedule.hasten(A, now=100)
    assert schedule.take_due(100) == [A]
    schedule.succeeded(A, 60, now=101)
    assert schedule.next_due() == 161


@pytest.mark.parametrize("regrouped", [False, True])
@pytest.mark.parametrize("works", [False, True])
def test_outdated_refresh_is_followed_by_another(*, works: bool, regrouped: bool) -> None:
    """What is under way may have begun before the edit, however it ends."""
    schedule = Schedule(node="n", jitter=0)
    schedule.add(A, "group", 3600, now=0)
    schedule.start(A, now=100)
    schedule.outdate([A], now=101, spread=0)
    assert schedule.take_due(101) == []
    if regrouped:
        schedule.add(A, "other", 3600, now=102)
    if works:
        schedule.succeeded(A, 3600, now=102)
    else:
        schedule.failed(A, now=102)
    assert schedule.take_due(102) == [A]
    schedule.succeeded(A, 3600, now=103)
    assert schedule.take_due(103) == []


def test_outdated_volume_is_refreshed_at_once() -> None:
    """And once."""
    schedule = Schedule(node="n", jitter=0)
    schedule.add(A, "group", 3600, now=0)
    schedule.outdate([A, B], now=100, spread=0)
    assert schedule.take_due(100) == [A]
    schedule.succeeded(A, 3600, now=101)
    assert schedule.take_due(101) == []


def test_outdated_groups_take_their_own_moments() -> None:
    """Within the spread; volumes of one group together, so that their reads can be merged."""
    schedule = Schedule(node="n", jitter=0)
    volumes = [VolumeId(f"{group}{number}") for group in range(20) for number in range(3)]
    for volume in volumes:
        schedule.add(volume, volume[:-1], 3600, now=0)
    schedule.outdate(volumes, now=100, spread=5)
    taken: dict[float, list[VolumeId]] = {}
    while (moment := schedule.next_due()) < 3600:
        taken[moment] = schedule.take_due(moment)
    assert [len(volumes) for volumes in taken.values()] == [3] * 20
    assert all(len({volume[:-1] for volume in volumes}) == 1 for volumes in taken.values())
    assert 100 <= min(taken) < 101
    assert 104 < max(taken) <= 105


def test_nodes_take_an_edit_at_different_moments() -> None:
    """A cluster does not ask the vault in the same second everywhere."""
    moments = set()
    for number in range(50):
        schedule = Schedule(node=f"node-{number}", jitter=0)
        schedule.add(A, "group", 3600, now=0)
        schedule.outdate([A], now=100, spread=5)
        moments.add(schedule.next_due())
    assert len(moments) == 50


@pytest.mark.parametrize("running", [False, True])
def test_edits_without_end_put_nothing_off(*, running: bool) -> None:
    """The first edit's moment holds, however many follow."""
    schedule = Schedule(node="n", jitter=0)
    schedule.add(A, "group", 3600, now=0)
    if running:
        schedule.start(A, now=99)
    for moment in range(100, 106):
        schedule.outdate([A], now=moment, spread=5)
    if running:
        schedule.succeeded(A, 3600, now=106)
    assert schedule.take_due(106) == [A]


def test_unknown_volumes_are_ignored() -> None:
    """A volume that was unpublished meanwhile is no error."""
    schedule = Schedule(node="n", jitter=0)
    schedule.succeeded(A, 10, now=0)
    schedule.hasten(A, now=0)
    schedule.start(A, now=0)
    schedule.ended(A)
    schedule.remove(A)
    assert schedule.failed(A, now=0) == 0
    assert not schedule.is_due(A, 1e9)
    assert not schedule.is_failing(A)

"""When a silent worker is taken for dead, and when it is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fusefs.watchdog import LATE_S, PATIENCE_S, PING_S, Watchdog

LONGEST_S = PATIENCE_S + PING_S  # from the last sign of life to the verdict


def test_silent_worker_is_found_dead_in_time() -> None:
    """The verdict comes at the first tick after the patience has ended, and not before."""
    dog = Watchdog(0.0)
    ticks = [number * PING_S for number in range(1, 20)]
    dead = [now for now in ticks if dog.tick(now)]
    assert PATIENCE_S <= dead[0] <= LONGEST_S


@given(answers=st.lists(st.floats(0.0, PATIENCE_S - PING_S - 0.01), min_size=1, max_size=30))
def test_worker_that_answers_lives(answers: list[float]) -> None:
    """However irregular, answers within the patience keep it alive."""
    dog = Watchdog(0.0)
    now = ticked = 0.0
    for pause in answers:
        now += pause
        while ticked + PING_S <= now:
            ticked += PING_S
            assert not dog.tick(ticked)
        dog.heard(now)


@given(away=st.floats(PING_S + LATE_S + 0.01, 1e6))
def test_stopped_keeper_blames_no_worker(away: float) -> None:
    """A keeper that did not run itself waits anew; a worker that stays silent is found then."""
    dog = Watchdog(0.0)
    assert not dog.tick(away)
    ticks = [away + number * PING_S for number in range(1, 20)]
    dead = [now for now in ticks if dog.tick(now)]
    assert PATIENCE_S - 1e-3 <= dead[0] - away <= LONGEST_S + 1e-3


def test_starved_keeper_is_no_excuse_for_long() -> None:
    """Ticks that are a little late, again and again, do not hide a dead worker."""
    dog = Watchdog(0.0)
    ticks = [number * (PING_S + LATE_S) for number in range(1, 10)]
    assert any(dog.tick(now) for now in ticks)

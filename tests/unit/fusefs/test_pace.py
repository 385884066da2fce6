"""How fast requests are let through, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fusefs.pace import BURST_S, SHORTEST_WAIT_S, Pace


class Clock:
    """Says what time it is."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_quiet_volume_waits_for_nothing() -> None:
    """Requests below the rate are let through at once."""
    clock = Clock()
    pace = Pace(100, clock=clock)
    for _ in range(1000):
        clock.now += 0.0101
        assert pace.delay_s() == 0.0


@given(rate=st.integers(1, 100_000), seconds=st.floats(1.0, 5.0))
def test_flood_is_held_to_the_rate(rate: int, seconds: float) -> None:
    """However many come, no more are let through than the rate and one burst."""
    clock = Clock()
    pace = Pace(rate, clock=clock)
    passed = 0
    while clock.now < seconds and passed <= rate * 6:
        delay = pace.delay_s()
        clock.now += delay
        passed += not delay
    assert passed <= rate * (clock.now + BURST_S) + 1
    assert passed >= min(rate * (seconds - 2 * SHORTEST_WAIT_S), rate * 6) - 1


def test_flood_is_woken_seldom() -> None:
    """Above the rate it sleeps for some requests at once; a timer for each would cost as much."""
    clock = Clock()
    pace = Pace(10_000, clock=clock)
    waits = 0
    while clock.now < 1.0:
        delay = pace.delay_s()
        clock.now += delay
        waits += delay > 0
    assert waits <= 1.0 / SHORTEST_WAIT_S + 1

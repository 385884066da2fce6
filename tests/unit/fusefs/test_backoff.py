"""How long the next worker is waited for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fusefs.backoff import (
    FIRST_BACKOFF_S,
    MAX_BACKOFF_S,
    MAX_SERVED_BACKOFF_S,
    STABLE_S,
    Backoff,
)


@given(lives=st.lists(st.floats(STABLE_S, 1e6), min_size=1, max_size=30))
def test_served_workers_have_successors_at_once(lives: list[float]) -> None:
    """However often they are killed, if they served for a while."""
    backoff = Backoff()
    assert {backoff.died(served=True, lived_s=lived) for lived in lives} == {0.0}


@given(lives=st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_workers_that_never_serve_wait_ever_longer(lives: list[float]) -> None:
    """The second one comes at once; then the wait doubles up to its limit."""
    backoff = Backoff()
    for number, lived in enumerate(lives):
        expected = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (number - 1)) if number else 0
        assert backoff.died(served=False, lived_s=lived) == expected
        assert backoff.never_served == number + 1


def test_request_that_kills_is_met_ever_later() -> None:
    """Each worker that takes it serves, and dies at once; one that lives ends the loop."""
    backoff = Backoff()
    waits = [backoff.died(served=True, lived_s=0.0) for _ in range(3000)]
    assert waits[:3] == [FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S, 4 * FIRST_BACKOFF_S]
    assert waits[-1] == MAX_SERVED_BACKOFF_S
    assert backoff.died(served=True, lived_s=STABLE_S) == 0.0
    assert backoff.died(served=True, lived_s=0.0) == FIRST_BACKOFF_S


def test_no_crash_loop_is_too_long() -> None:
    """After any number of deaths the next worker still comes."""
    backoff = Backoff()
    waits = [backoff.died(served=False, lived_s=0.0) for _ in range(3000)]
    assert waits[-1] == MAX_BACKOFF_S

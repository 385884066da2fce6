"""Trying again."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from fakes.keyvault import Clock
from provider.budget import Budget
from provider.errors import DeadlineExceeded, NotFound, ProviderError, Throttled, Unavailable
from provider.retry import RETRIES, delays, patiently


class VirtualBudget(Budget):
    """A budget whose pauses pass on a virtual clock and are noted."""

    def __init__(self, seconds: float) -> None:
        self.clock = Clock()
        self.pauses: list[float] = []
        super().__init__(seconds, clock=self.clock)

    @override
    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds
        self.check()


class Script:
    """An action that fails as it is told, then succeeds."""

    def __init__(self, *failures: ProviderError) -> None:
        self.failures = list(failures)
        self.runs = 0

    def __call__(self) -> str:
        """Run once."""
        self.runs += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


def full() -> float:
    """Draw no jitter."""
    return 0.0


@given(st.floats(0, 1))
def test_delays_grow_and_stay_bounded(draw: float) -> None:
    """Whatever is drawn, each pause is at least half of its length and longer than the last."""
    pauses = list(delays(lambda: draw))
    assert len(pauses) == RETRIES
    assert pauses == sorted(pauses)
    assert 0.25 <= pauses[0] <= 0.5
    assert 2.25 <= pauses[-1] <= 4.5


def test_passing_trouble_is_waited_out() -> None:
    """Three failures cost three pauses, and then it works."""
    budget = VirtualBudget(60)
    script = Script(Unavailable("a"), Throttled("b"), Unavailable("c"))
    assert patiently(script, budget, draw=full) == "done"
    assert budget.pauses == [0.5, 1.5, 4.5]


def test_lasting_trouble_is_the_answer() -> None:
    """After the last retry the trouble itself is raised."""
    script = Script(*[Unavailable("still down")] * 9)
    with pytest.raises(Unavailable, match="still down"):
        patiently(script, VirtualBudget(60), draw=full)
    assert script.runs == RETRIES + 1


def test_other_errors_are_not_retried() -> None:
    """A missing secret is missing at once."""
    script = Script(NotFound("missing"))
    with pytest.raises(NotFound):
        patiently(script, VirtualBudget(60))
    assert script.runs == 1


def test_a_service_is_left_alone_as_it_asks() -> None:
    """Retry-After is longer than our own pause, and wins."""
    budget = VirtualBudget(60)
    assert patiently(Script(Throttled("429", retry_after=7.0)), budget) == "done"
    assert budget.pauses == [7.0]


def test_a_pause_beyond_the_end_is_not_begun() -> None:
    """The caller learns at once why, not later that its time is over."""
    budget = VirtualBudget(5)
    script = Script(Throttled("429", retry_after=30.0))
    with pytest.raises(Throttled):
        patiently(script, budget)
    assert (script.runs, budget.pauses) == (1, [])


def test_nothing_is_tried_without_time() -> None:
    """An action is not begun after the end."""
    script = Script()
    with pytest.raises(DeadlineExceeded):
        patiently(script, VirtualBudget(0))
    assert script.runs == 0


def test_retries_get_louder(caplog: pytest.LogCaptureFixture) -> None:
    """The first retry is a detail, the third a warning."""
    caplog.set_level(logging.DEBUG, "provider.retry")
    patiently(Script(*[Unavailable("x")] * 3), VirtualBudget(60), draw=full)
    assert [record.levelname for record in caplog.records] == ["DEBUG", "INFO", "WARNING"]

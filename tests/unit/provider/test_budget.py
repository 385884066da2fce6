"""The caller's time."""

from __future__ import annotations

import threading

import pytest

from fakes.keyvault import Clock
from provider.budget import Budget
from provider.errors import Cancelled, DeadlineExceeded


def test_a_budget_runs_down_and_ends() -> None:
    """What is left never goes below zero, and the end is Go's error."""
    clock = Clock()
    budget = Budget(5.0, clock=clock)
    clock.now += 3
    assert budget.remaining() == 2.0
    budget.check()
    clock.now += 3
    assert budget.remaining() == 0.0
    with pytest.raises(DeadlineExceeded, match="context deadline exceeded; the 5"):
        budget.check()


def test_cancelling_ends_a_budget_at_once() -> None:
    """A caller that hung up leaves no time, whatever the clock says."""
    budget = Budget(60.0)
    budget.cancel()
    assert budget.cancelled
    assert budget.remaining() == 0.0
    with pytest.raises(Cancelled):
        budget.check()


def test_cancelling_wakes_a_pause() -> None:
    """A pause of a minute ends with the caller, not with the minute."""
    budget = Budget(60.0)
    outcome: list[BaseException] = []
    started = threading.Event()

    def pause() -> None:
        started.set()
        try:
            budget.pause(60.0)
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=pause)
    thread.start()
    started.wait(5)
    budget.cancel()
    thread.join(5)
    assert len(outcome) == 1


def test_a_pause_is_no_longer_than_the_budget() -> None:
    """The end of the budget ends a pause."""
    with pytest.raises(DeadlineExceeded):
        Budget(0.01).pause(60.0)


def test_listeners_hear_of_a_cancellation_once() -> None:
    """One that comes late hears of it at once."""
    heard: list[str] = []
    budget = Budget(1.0)
    budget.on_cancel(lambda: heard.append("early"))
    budget.cancel()
    budget.cancel()
    budget.on_cancel(lambda: heard.append("late"))
    assert heard == ["early", "late"]

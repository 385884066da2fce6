"""The steps of a freeze, one after another and out of order."""

from __future__ import annotations

import pytest

from fusefs.effects import Drain, Fill, Fossilize, LetGo, RetryLater
from fusefs.freezing import RETRY_S, Freezing


@pytest.fixture
def filling() -> Freezing:
    """Return a freeze whose child is at work."""
    freezing = Freezing()
    assert freezing.begin() == [Fossilize()]
    assert freezing.worker_freezes() == [Fill()]
    return freezing


def test_steps_follow_each_other(filling: Freezing) -> None:
    """The worker first, then the child, then the readers, then nothing is held."""
    assert filling.filled(succeeded=True) == [Drain()]
    assert filling.drained() == [LetGo()]


def test_failed_child_is_tried_again(filling: Freezing) -> None:
    """What could not be cached is tried again from the beginning, after a while."""
    assert filling.filled(succeeded=False) == [RetryLater(RETRY_S)]
    assert filling.begin() == [Fossilize()]


def test_successor_begins_anew(filling: Freezing) -> None:
    """What a child cached while the worker was replaced does not count."""
    filling.worker_died()
    assert filling.begin() == []
    assert filling.filled(succeeded=True) == [RetryLater(RETRY_S)]
    assert filling.begin() == [Fossilize()]


def test_worker_that_dies_last_is_told_again(filling: Freezing) -> None:
    """A successor would give out handles, so it is told what its predecessor was."""
    filling.filled(succeeded=True)
    filling.worker_died()
    assert filling.drained() == []
    assert filling.begin() == [Fossilize()]


def test_failed_effect_begins_anew(filling: Freezing) -> None:
    """Whatever could not be done, the next attempt starts with the worker."""
    filling.effect_failed()
    assert filling.filled(succeeded=True) == []
    assert filling.begin() == [Fossilize()]


def test_late_news_change_nothing() -> None:
    """News of a step that is not under way are of an attempt before."""
    freezing = Freezing()
    assert freezing.filled(succeeded=True) == []
    assert freezing.drained() == []
    freezing.worker_freezes()
    assert freezing.worker_freezes() == []

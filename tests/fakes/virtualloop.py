"""A keeper's loop in virtual time: nothing but timers, which come due when a test says so."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from typing_extensions import override

from fusefs.loop import Loop, Timer

if TYPE_CHECKING:
    from collections.abc import Callable


class VirtualLoop(Loop):
    """Passes time as it is told."""

    def __init__(self) -> None:
        """Begin at 0."""
        super().__init__()
        self.close()
        self._now = 0.0
        self._due: list[Timer] = []
        self._numbers = itertools.count()

    @override
    def now(self) -> float:
        return self._now

    @override
    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self._now + seconds, next(self._numbers), callback)
        self._due.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass and call back what comes due, each in its moment."""
        end = self._now + seconds
        while self._due and min(self._due).due <= end:
            self._fire(min(self._due))
        self._now = end

    def stand_still(self, seconds: float) -> None:
        """Let time pass in which this process does not run; what came due is called afterwards."""
        self._now += seconds
        self.advance(0.0)

    def _fire(self, timer: Timer) -> None:
        self._due.remove(timer)
        self._now = max(self._now, timer.due)
        callback, timer.callback = timer.callback, None
        if callback is not None:
            callback()

"""The time that a caller gives, shared by everything that works for it.

A `Budget` is made when a call arrives, handed down through every layer, and consulted before each
request and each pause. It ends by time or by cancellation, whichever is first. Threads share it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from provider.errors import Cancelled, DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

# Go's texts, which the reference passes on.
CANCELED: Final = "context canceled"
EXCEEDED: Final = "context deadline exceeded"


class Budget:
    """Seconds left for one call, and whether anybody still waits.

    Args:
        seconds: How long the work may take.
        clock: Monotonic seconds; tests give their own.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def remaining(self) -> float:
        """Return the seconds left, never below zero; zero once cancelled."""
        return 0.0 if self._cancelled.is_set() else max(0.0, self._end - self._clock())

    @property
    def cancelled(self) -> bool:
        """Tell whether the caller gave up."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End the budget now and wake whoever waits on it. May be called twice, by any thread."""
        with self._lock:
            self._cancelled.set()
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def on_cancel(self, listener: Callable[[], None]) -> None:
        """Call `listener` once when the budget is cancelled, at once if it already is."""
        with self._lock:
            if not self._cancelled.is_set():
                self._listeners.append(listener)
                return
        listener()

    def check(self) -> None:
        """Return if there is time left.

        Raises:
            Cancelled: the caller gave up.
            DeadlineExceeded: the time is used up.
        """
        if self._cancelled.is_set():
            raise Cancelled(CANCELED)
        if self.remaining() <= 0:
            remedy = f"the {self.seconds:.1f} s that the caller gave are used up"
            raise DeadlineExceeded(EXCEEDED, remedy=remedy)

    def pause(self, seconds: float) -> None:
        """Sleep, but no longer than the budget lasts.

        Raises:
            Cancelled: the caller gave up.
            DeadlineExceeded: the time is used up.
        """
        self._cancelled.wait(min(seconds, self.remaining()))
        self.check()

"""The keeper's event loop: descriptors, timers, children. One thread, nothing else.

A process that forks has no threads and no trio loop (both would be half there in the child), hence
this instead of trio.
"""

import heapq
import itertools
import logging
import os
import selectors
import time
from collections.abc import Callable

import attrs

log = logging.getLogger(__name__)

Callback = Callable[[], None]


@attrs.define(order=True)
class Timer:
    """A call to come. `cancel` makes it never come."""

    due: float
    number: int
    callback: Callback | None = attrs.field(order=False)

    def cancel(self) -> None:
        """Do not make the call."""
        self.callback = None


class Loop:
    """Calls back when a descriptor is readable, a time has come, or a child has ended."""

    def __init__(self) -> None:
        """Start with nothing to wait for."""
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._numbers = itertools.count()
        self._stopped = False

    def watch(self, descriptor: int, callback: Callback, *, writable: bool = False) -> None:
        """Call back whenever `descriptor` is readable, or writable instead."""
        event = selectors.EVENT_WRITE if writable else selectors.EVENT_READ
        self._selector.register(descriptor, event, callback)

    def unwatch(self, descriptor: int) -> None:
        """Forget `descriptor`; call before closing it."""
        self._selector.unregister(descriptor)

    def now(self) -> float:
        """Return the time that timers go by; it stands still while the node is suspended."""
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        """Call back once, `seconds` from now."""
        timer = Timer(self.now() + seconds, next(self._numbers), callback)
        heapq.heappush(self._timers, timer)
        return timer

    def watch_child(self, pid: int, callback: Callable[[int], None]) -> None:
        """Reap the child `pid` when it ends and call back with its exit code (negative: signal)."""
        pidfd = os.pidfd_open(pid)

        def ended() -> None:
            self.unwatch(pidfd)
            os.close(pidfd)
            _, status = os.waitpid(pid, 0)
            callback(os.waitstatus_to_exitcode(status))

        self.watch(pidfd, ended)

    def run(self) -> None:
        """Call back until `stop`. A callback that fails is logged and the loop goes on."""
        self._stopped = False
        while not self._stopped:
            for key, _ in self._selector.select(self._next_timeout()):
                # An earlier callback may have unwatched it, and its number may be new.
                if self._selector.get_map().get(key.fd) is key:
                    self._call(key.data)
            self._run_timers()

    def stop(self) -> None:
        """Make `run` return."""
        self._stopped = True

    def close(self) -> None:
        """Close the loop's own descriptor."""
        self._selector.close()

    def _next_timeout(self) -> float | None:
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].due - self.now()) if self._timers else None

    def _run_timers(self) -> None:
        now = self.now()
        while self._timers and self._timers[0].due <= now:
            timer = heapq.heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._call(callback)

    @staticmethod
    def _call(callback: Callback) -> None:
        try:
            callback()
        except Exception:  # one volume's trouble must not end the others
            log.exception("a callback of the keeper failed")

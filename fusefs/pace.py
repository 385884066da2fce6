"""How fast one volume is served: so that one pod cannot take the node's processors."""

from collections.abc import Callable
from typing import Final

import trio

BURST_S: Final = 0.1
SHORTEST_WAIT_S: Final = 0.005  # to wake for each single request would cost what it should save


class Pace:
    """Requests that may be served: so many per second, and a burst after a while of quiet."""

    def __init__(self, per_second: int, *, clock: Callable[[], float] = trio.current_time) -> None:
        """Begin with a whole burst."""
        self._per_second = per_second
        self._clock = clock
        self._burst = max(1.0, per_second * BURST_S)
        self._saved = self._burst
        self._counted_at = clock()

    def delay_s(self) -> float:
        """Count a request and return 0, or return how long to wait before asking again."""
        now = self._clock()
        earned = (now - self._counted_at) * self._per_second
        self._saved = min(self._burst, self._saved + earned)
        self._counted_at = now
        if self._saved >= 1:
            self._saved -= 1
            return 0.0
        return max(SHORTEST_WAIT_S, (1 - self._saved) / self._per_second)

"""How long a volume does without a worker after one has died: ever longer in a crash loop."""

from typing import Final

FIRST_BACKOFF_S: Final = 0.05
MAX_BACKOFF_S: Final = 5.0
MAX_SERVED_BACKOFF_S: Final = 1.0  # readers wait meanwhile
STABLE_S: Final = 0.1  # of service; a request that kills needs less
_MOST_DOUBLINGS: Final = 16  # far past MAX_BACKOFF_S, far from the end of floats


class Backoff:
    """The deaths of a volume's workers.

    Attributes:
        never_served: How many in a row died before they served.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.never_served = 0
        self._died_young = 0

    def died(self, *, served: bool, lived_s: float) -> float:
        """Return how long to wait before the next worker.

        One that served tells that its successor can: somebody killed it, and the next one comes at
        once. But a request may have killed it, and is sent again to each of them.
        """
        if not served:
            self.never_served += 1
            return _doubled(self.never_served - 1, MAX_BACKOFF_S)
        self.never_served = 0
        self._died_young = 0 if lived_s >= STABLE_S else self._died_young + 1
        return _doubled(self._died_young, MAX_SERVED_BACKOFF_S)


def _doubled(times: int, most_s: float) -> float:
    if times == 0:
        return 0.0
    return min(most_s, FIRST_BACKOFF_S * 2.0 ** min(times - 1, _MOST_DOUBLINGS))

"""When to try again: a few times, further and further apart, never past the caller's time."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Final, TypeVar

from provider.errors import Throttled, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from provider.budget import Budget

T = TypeVar("T")

log = logging.getLogger(__name__)

RETRIES: Final = 3  # like the reference
FIRST_DELAY_S: Final = 0.5
FACTOR: Final = 3  # 0.5, 1.5 and 4.5 s: a vault counts its requests in windows of 10 s
JITTER: Final = 0.5  # share of a delay that is random, so that a fleet does not march in step
# A second try is nothing; a third may matter to somebody.
_LEVELS: Final = (logging.DEBUG, logging.INFO, logging.WARNING)


def delays(draw: Callable[[], float] = random.random) -> Iterator[float]:
    """Yield the pause before each retry, in seconds.

    Args:
        draw: Random numbers from 0 to 1.
    """
    for attempt in range(RETRIES):
        yield FIRST_DELAY_S * FACTOR**attempt * (1 - JITTER * draw())


def patiently(
    action: Callable[[], T],
    budget: Budget,
    *,
    draw: Callable[[], float] = random.random,
) -> T:
    """Run an action, again after trouble that may pass.

    A service that says how long it wants to be left alone is left alone for so long. When the next
    try would begin after the budget's end, the trouble itself is the answer, at once: the caller
    learns more from it than from a deadline.

    Raises:
        Throttled: there were too many requests, and still are.
        Unavailable: there was trouble, and still is.
    """
    for delay, level in zip(delays(draw), _LEVELS, strict=True):
        budget.check()
        try:
            return action()
        except (Throttled, Unavailable) as error:
            asked = error.retry_after if isinstance(error, Throttled) else None
            pause = max(delay, asked or 0.0)
            if pause >= budget.remaining():
                raise
            log.log(level, "trying again in %.1f s: %s", pause, error)
        budget.pause(pause)
    budget.check()
    return action()

"""Waiting in tests: until something is so, never for a length of time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE_S: Final = 0.01


class NotInTime(AssertionError):
    """What a test waited for did not come about before the deadline."""


def eventually(
    condition: Callable[[], bool], what: str, *, timeout_s: float = 10.0, pause_s: float = PAUSE_S
) -> None:
    """Return once `condition` is true, which is looked at every `pause_s`.

    Raises:
        NotInTime: It was still false after `timeout_s`; the message says `what` was expected.
    """
    deadline = time.monotonic() + timeout_s
    never = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            message = f"not within {timeout_s:g} s: {what}"
            raise NotInTime(message)
        never.wait(pause_s)

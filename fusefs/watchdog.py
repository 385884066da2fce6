"""When a worker that still lives must be taken for dead: a state machine without I/O."""

from typing import Final

PING_S: Final = 1.0  # between two questions
PATIENCE_S: Final = 2.5  # without an answer
LATE_S: Final = 1.0  # so late a tick says that it was the keeper that did not run


class Watchdog:
    """Watches one worker: `tick` every `PING_S`, `heard` whenever it has answered.

    A keeper that was stopped, starved or suspended finds no answers either when it runs again. It
    knows by its own ticks, which were late, and begins to wait anew.
    """

    def __init__(self, now: float) -> None:
        """Begin to wait."""
        self._heard_at = now
        self._ticked_at = now

    def heard(self, now: float) -> None:
        """Take note of a sign of life."""
        self._heard_at = now

    def tick(self, now: float) -> bool:
        """Return whether the worker has been silent for too long."""
        late = now - self._ticked_at > PING_S + LATE_S
        self._ticked_at = now
        if late:
            self._heard_at = now
        return now - self._heard_at >= PATIENCE_S

"""What a volume's state machine asks for: records that `host` carries out, one after another."""

from typing import Final

import attrs

from fusefs.errors import KeeperError


@attrs.frozen
class Ticket:
    """Which request of which session waits for an answer."""

    session: int
    request: int


NOBODY: Final = Ticket(0, 0)  # who asked is gone with the keeper before


@attrs.frozen
class Rotation:
    """A generation on its way in."""

    generation: int
    previous: int
    plan: bytes = attrs.field(repr=False)
    ticket: Ticket


@attrs.frozen
class ClearTarget:
    """Make the target an empty directory."""


@attrs.frozen
class StartWorker:
    """Fork a worker, after a while when its predecessors died early."""

    delay_s: float = 0.0


@attrs.frozen
class ReplaceWorker:
    """End the worker; its successor is asked for when it has ended."""


@attrs.frozen
class StartPriming:
    """Let a child prime the mount."""


@attrs.frozen
class EndPriming:
    """Make the worker hide the priming file."""


@attrs.frozen
class Attach:
    """Make the target show the volume."""


@attrs.frozen
class SendSwap:
    """Give the worker the generation on its way in."""

    rotation: Rotation


@attrs.frozen
class Discard:
    """Let go of a generation that was never served."""

    generation: int


@attrs.frozen
class StartTouch:
    """Let a child carry out the plan, or only raise the events that are owed."""

    rotation: Rotation
    only: tuple[str, ...] | None = None


@attrs.frozen
class EndTouch:
    """Make the superblock read-only again; with `finished`, the plan in progress is over."""

    finished: bool


@attrs.frozen
class Answer:
    """Answer a request: done, or refused."""

    ticket: Ticket
    error: KeeperError | None = None


@attrs.frozen
class RetryLater:
    """Call `retry` after a while."""

    delay_s: float


@attrs.frozen
class TearDown:
    """Leave nothing of the volume."""


@attrs.frozen
class Fossilize:
    """Make the worker answer as of a volume that is being frozen."""


@attrs.frozen
class Fill:
    """Let a child fill the kernel's caches."""


@attrs.frozen
class Drain:
    """Wait until nobody uses a handle, or long enough."""


@attrs.frozen
class LetGo:
    """Leave the target as it is, and nothing else of the volume."""


Effect = (
    ClearTarget
    | StartWorker
    | ReplaceWorker
    | StartPriming
    | EndPriming
    | Attach
    | SendSwap
    | Discard
    | StartTouch
    | EndTouch
    | Answer
    | RetryLater
    | Fossilize
    | Fill
    | Drain
    | LetGo
    | TearDown
)

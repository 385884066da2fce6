"""The life of one volume in the keeper, as a state machine without I/O.

Each method is an event; it returns the effects that `host` carries out, in order. An effect that
fails comes back as the event `effect_failed`.

::

    clearing -> starting -> priming -> settling -> serving <-> swapping -> touching -> notifying
        |          |           |          |           |                                   |
        +----------+-----------+----------+-----------+--------- closed <-----------------+

A worker may die in any phase; its successor gets everything kept and the phase goes on. Only before
`serving` does a crash loop end the volume, since then nobody uses it yet.
"""

from collections import deque
from typing import Final, Literal

import attrs

from fusefs.errors import KeeperError, VolumeFailed, VolumeUnknown

MAX_START_FAILURES: Final = 3
FIRST_BACKOFF_S: Final = 0.05
MAX_BACKOFF_S: Final = 5.0
STABLE_S: Final = 0.25  # a worker that lived so long has not crashed for how it was started
TOUCH_RETRY_S: Final = 0.2
NOTIFY_RETRY_S: Final = 1.0  # while a pod holds a lease on a file


@attrs.frozen
class Ticket:
    """Which request of which session waits for an answer."""

    session: int
    request: int


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


Effect = (
    ClearTarget
    | StartWorker
    | StartPriming
    | EndPriming
    | Attach
    | SendSwap
    | StartTouch
    | EndTouch
    | Answer
    | RetryLater
    | TearDown
)
Phase = Literal[
    "clearing",
    "starting",
    "priming",
    "settling",
    "serving",
    "swapping",
    "touching",
    "notifying",
    "closed",
]


class Volume:
    """One volume.

    Attributes:
        phase: Where it stands.
        acknowledged: The newest generation that every new open is known to see.
        rotation: The generation on its way in, until its plan is finished.
        primed: Whether a worker may be told that the mount has been primed.
    """

    def __init__(self, generation: int, ticket: Ticket) -> None:
        """Begin to publish `generation`; `ticket` is answered when the target shows it."""
        self.phase: Phase = "clearing"
        self.acknowledged = generation
        self.rotation: Rotation | None = None
        self.primed = False
        self._worker_ready = False
        self._publishing: Ticket | None = ticket
        self._queue: deque[Rotation] = deque()
        self._failures = 0
        self._owed: tuple[str, ...] = ()

    @property
    def newest(self) -> int:
        """The newest generation that has been handed in."""
        if self._queue:
            return self._queue[-1].generation
        return self.rotation.generation if self.rotation else self.acknowledged

    @property
    def worker_is_ready(self) -> bool:
        """Whether a worker answers the kernel."""
        return self._worker_ready

    def spared(self) -> set[int]:
        """Return the generations that must be kept, whatever their age."""
        spared = {self.acknowledged, self.newest}
        if self.rotation:
            spared.update((self.rotation.generation, self.rotation.previous))
        spared.update(rotation.generation for rotation in self._queue)
        return spared

    @property
    def plan_in_progress(self) -> bytes | None:
        """The plan that a new worker must know of."""
        return self.rotation.plan if self.rotation else None

    # Coming up

    def begin(self) -> list[Effect]:
        """Start the life of the volume."""
        return [ClearTarget()]

    def target_cleared(self) -> list[Effect]:
        """Take note that the target is an empty directory."""
        if self.phase != "clearing":
            return []
        self.phase = "starting"
        return [StartWorker()]

    def worker_ready(self) -> list[Effect]:
        """Go on: a worker answers the kernel, with everything kept."""
        self._worker_ready = True
        match self.phase:
            case "starting":
                self.phase = "priming"
                return [StartPriming()]
            case "settling":
                return self.priming_ended()
            case "swapping" if self.rotation:
                return self.swapped(self.rotation.generation)
            case _:
                return []

    def primed_by_child(self, *, succeeded: bool) -> list[Effect]:
        """Take note that the priming child has ended."""
        if self.phase != "priming":
            return []
        if not succeeded:
            return self._give_up(
                VolumeFailed("the mount could not be primed; see the keeper's log")
            )
        self.phase = "settling"
        self.primed = True
        return [EndPriming()] if self._worker_ready else []

    def priming_ended(self) -> list[Effect]:
        """Show the volume: the priming file can be found no longer."""
        if self.phase != "settling":
            return []
        return [Attach()]

    def attached(self) -> list[Effect]:
        """Tell the node server: the target shows the volume."""
        if self.phase != "settling" or self._publishing is None:
            return []
        self.phase = "serving"
        ticket, self._publishing = self._publishing, None
        return [Answer(ticket), *self._next_rotation()]

    # Rotation

    def rotate(self, rotation: Rotation) -> list[Effect]:
        """Take a new generation in, after those before it."""
        self._queue.append(rotation)
        return self._next_rotation()

    def _next_rotation(self) -> list[Effect]:
        if self.phase != "serving" or not self._queue:
            return []
        ended = [EndTouch(finished=True)] if self.rotation else []
        self.rotation = self._queue.popleft()
        self._owed = ()
        self.phase = "swapping"
        # Without a worker the successor starts on this generation.
        return [*ended, SendSwap(self.rotation)] if self._worker_ready else list(ended)

    def swapped(self, generation: int) -> list[Effect]:
        """Carry out the plan: the worker serves the generation."""
        if self.phase != "swapping" or not self.rotation or self.rotation.generation != generation:
            return []
        self.phase = "touching"
        return [StartTouch(self.rotation)]

    def touch_acknowledged(self) -> list[Effect]:
        """Tell the node server: every new open and walk sees the generation."""
        if self.phase != "touching" or not self.rotation:
            return []
        self.phase = "notifying"
        self.acknowledged = self.rotation.generation
        return [Answer(self.rotation.ticket)]

    def touch_ended(self, *, busy: tuple[str, ...] | None) -> list[Effect]:
        """Take note that the touch child has ended; `busy` is None when it failed."""
        if self.phase == "touching":
            return [EndTouch(finished=False), RetryLater(TOUCH_RETRY_S)]
        if self.phase != "notifying" or not self.rotation:
            return []
        self.phase = "serving"
        self._owed = busy or ()
        if self._owed and not self._queue:
            return [EndTouch(finished=False), RetryLater(NOTIFY_RETRY_S)]
        return self._finish_rotation()

    def _finish_rotation(self) -> list[Effect]:
        self.rotation = None
        self._owed = ()
        return [EndTouch(finished=True), *self._next_rotation()]

    def retry(self) -> list[Effect]:
        """Try again what a touch child could not do."""
        if self.phase == "touching" and self.rotation:
            return [StartTouch(self.rotation)]
        if self.phase == "serving" and self.rotation and self._owed:
            self.phase = "notifying"
            return [StartTouch(self.rotation, only=self._owed)]
        return []

    @property
    def lost_events(self) -> int:
        """How many files are owed an event that a new rotation would take away."""
        return len(self._owed)

    # Trouble and the end

    def worker_died(self, *, lived_s: float) -> list[Effect]:
        """Replace the worker, ever later when it keeps dying young."""
        if self.phase == "closed":
            return []
        ready, self._worker_ready = self._worker_ready, False
        self._failures = 0 if ready and lived_s >= STABLE_S else self._failures + 1
        if self._publishing and self._failures >= MAX_START_FAILURES:
            return self._give_up(VolumeFailed("its worker keeps dying; see the keeper's log"))
        if self._failures <= 1:
            return [StartWorker()]
        delay = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** (self._failures - 2))
        return [StartWorker(delay)]

    def effect_failed(self, error: Exception) -> list[Effect]:
        """Give the volume up while it comes up; afterwards an effect is tried again."""
        if self.phase == "closed":
            return []
        if self._publishing:
            known = isinstance(error, KeeperError)
            return self._give_up(error if known else VolumeFailed(str(error)))  # type: ignore[arg-type]
        return [RetryLater(TOUCH_RETRY_S)]

    def connection_lost(self) -> list[Effect]:
        """Let go: somebody aborted the connection, nothing can serve it any more."""
        return self._give_up(VolumeFailed("its FUSE connection was aborted; publish it again"))

    def unpublish(self) -> list[Effect]:
        """End the volume, in whatever phase it is."""
        return self._give_up(VolumeUnknown("the volume was unpublished meanwhile"))

    def _give_up(self, error: KeeperError) -> list[Effect]:
        waiting = [self._publishing] if self._publishing else []
        if self.rotation and self.phase in ("swapping", "touching"):
            waiting.append(self.rotation.ticket)
        waiting.extend(rotation.ticket for rotation in self._queue)
        self.phase = "closed"
        self._publishing = None
        self._queue.clear()
        return [TearDown(), *(Answer(ticket, error) for ticket in waiting)]

"""The life of one volume in the keeper, as a state machine without I/O.

Each method is an event; it returns the effects that `host` carries out, in order. One that fails
comes back as `effect_failed`; those after it are carried out, so every ticket is answered once.

::

    clearing -> starting -> priming -> settling -> serving <-> swapping -> touching -> notifying
        |          |           |          |           |                                   |
        +----------+-----------+----------+-----------+--> closed <--- freezing <---------+

A volume that is adopted from a keeper before begins in `serving` or `swapping`. A worker may die in
any phase; its successor is forked with what holds at that moment, and the phase goes on. Only
before `serving` does a crash loop end the volume, since then nobody uses it yet.
"""

from collections.abc import Sequence
from typing import Final, Literal, Self

from fusefs.backoff import Backoff
from fusefs.effects import (
    NOBODY,
    Answer,
    Attach,
    ClearTarget,
    Discard,
    Drain,
    Effect,
    EndPriming,
    EndTouch,
    Fill,
    Fossilize,
    LetGo,
    ReplaceWorker,
    RetryLater,
    Rotation,
    SendSwap,
    StartPriming,
    StartTouch,
    StartWorker,
    TearDown,
    Ticket,
)
from fusefs.errors import InvalidMessage, KeeperError, VolumeFailed, VolumeUnknown
from fusefs.freezing import Freezing
from fusefs.lineage import Lineage

MAX_START_FAILURES: Final = 3
TOUCH_RETRY_S: Final = 0.2
NOTIFY_RETRY_S: Final = 1.0  # while a pod holds a lease on a file


Phase = Literal[
    "clearing",
    "starting",
    "priming",
    "settling",
    "serving",
    "swapping",
    "touching",
    "notifying",
    "freezing",
    "closed",
]


class Volume(Lineage):
    """One volume.

    Attributes:
        phase: Where it stands.
        primed: Whether a worker may be told that the mount has been primed.
    """

    def __init__(self, generation: int, ticket: Ticket, rotations: Sequence[Rotation] = ()) -> None:
        """Begin to publish `generation`; `ticket` is answered when the target shows it."""
        super().__init__(generation, rotations)
        self.phase: Phase = "clearing"
        self.primed = False
        self._worker_ready = False
        self._touching = False
        self._unfinished = False
        self._unsent = False
        self._publishing = [ticket]
        self._backoff = Backoff()
        self._owed: tuple[str, ...] = ()
        self._to_freeze = False
        self._freezing = Freezing()

    @classmethod
    def adopted(cls, acknowledged: int, rotations: Sequence[Rotation]) -> Self:
        """Go on with a volume that the target shows already.

        Args:
            acknowledged: The newest generation that every new open is known to see.
            rotations: Those on their way in, oldest first; the first may be acknowledged.
        """
        volume = cls(acknowledged, NOBODY, rotations)
        volume._publishing = []
        volume.primed = True
        volume.phase = "serving"
        if rotations:
            volume.rotation = volume._queue.popleft()
            volume.phase = "swapping"
        return volume

    @property
    def is_shown(self) -> bool:
        """Whether the target shows the volume."""
        return not self._publishing and self.phase != "closed"

    @property
    def owed(self) -> tuple[str, ...]:
        """Files whose event is still owed; a new rotation takes it away."""
        return self._owed

    @property
    def waiting(self) -> int:
        """How many generations have been handed in and are not acknowledged yet."""
        under_way = self.rotation is not None and self.phase in ("swapping", "touching")
        return len(self._queue) + under_way

    # Coming up

    def begin(self) -> list[Effect]:
        """Start the life of the volume."""
        if self.phase == "clearing":
            return [ClearTarget()]
        # A rotation that the keeper before had begun may have left writes let through.
        return [StartWorker()] if self.rotation else [StartWorker(), EndTouch(finished=False)]

    def publish_again(self, ticket: Ticket) -> list[Effect]:
        """Answer a repeated request when the target shows the volume, which may be now."""
        if self.phase == "closed":
            return [Answer(ticket, _unpublished())]
        if self._publishing:
            self._publishing.append(ticket)
            return []
        return [Answer(ticket)]

    def target_cleared(self) -> list[Effect]:
        """Take note that the target is an empty directory."""
        if self.phase != "clearing":
            return []
        self.phase = "starting"
        return [StartWorker()]

    def worker_ready(self) -> list[Effect]:
        """Go on: a worker answers the kernel; it may be older than the end of priming."""
        self._worker_ready = True
        match self.phase:
            case "starting":
                self.phase = "priming"
                return [StartPriming()]
            case "settling":
                return [EndPriming()]
            case "freezing":
                return self._freezing.begin()
            case _:
                return self._next_rotation()

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
        if self.phase != "settling":
            return []
        self.phase = "serving"
        waiting, self._publishing = self._publishing, []
        return [*(Answer(ticket) for ticket in waiting), *self._next_rotation()]

    # Rotation

    def rotate(self, rotation: Rotation) -> list[Effect]:
        """Take a new generation in, after those before it."""
        if self.phase == "closed":
            return [Answer(rotation.ticket, _unpublished())]
        if self._to_freeze:
            return _refuse(rotation)
        self._queue.append(rotation)
        return self._next_rotation()

    def _next_rotation(self) -> list[Effect]:
        if self._to_freeze and self.phase == "serving":
            return self._begin_to_freeze()
        if self.phase != "serving" or not self._queue:
            return []
        ended = [EndTouch(finished=True)] if self.rotation else []
        self.rotation = self._queue.popleft()
        self._owed = ()
        self._unsent = False
        self.phase = "swapping"
        # Each worker hears of a rotation once: one that is not ready yet finds it in its socket,
        # one that is not forked yet is forked with it, and says itself what became of it.
        return [*ended, SendSwap(self.rotation)]

    def swapped(self, generation: int) -> list[Effect]:
        """Carry out the plan: the worker serves the generation."""
        if self.phase != "swapping" or not self.rotation or self.rotation.generation != generation:
            return []
        self.phase = "touching"
        self._unfinished = False  # the end of this rotation is the end of all before it
        return self._touch(self.rotation)

    def rejected(self, generation: int, text: str) -> list[Effect]:
        """Go on without a generation that the worker cannot serve."""
        if self.phase != "swapping" or not self.rotation or self.rotation.generation != generation:
            return []
        if generation <= self.acknowledged:
            # The keeper before got further with it than this one understands: events are lost.
            self.rotation = None
            self.phase = "serving"
            return [EndTouch(finished=True), ReplaceWorker(), *self._next_rotation()]
        refused = InvalidMessage(f"generation {generation} cannot be served: {text}")
        answer = Answer(self.rotation.ticket, refused)
        self.rotation = None
        self.phase = "serving"
        late = [RetryLater(TOUCH_RETRY_S)] if self._unfinished else []
        return [Discard(generation), answer, *late, *self._next_rotation()]

    def _touch(self, rotation: Rotation, only: tuple[str, ...] | None = None) -> list[Effect]:
        """Start the touch child. There is one at a time: it would answer for another's work."""
        self._touching = True
        return [StartTouch(rotation, only)]

    def touch_acknowledged(self) -> list[Effect]:
        """Tell the node server: every new open and walk sees the generation."""
        if self.phase != "touching" or not self.rotation:
            return []
        self.phase = "notifying"
        self.acknowledged = self.rotation.generation
        return [Answer(self.rotation.ticket)]

    def touch_ended(self, *, busy: tuple[str, ...] | None) -> list[Effect]:
        """Take note that the touch child has ended; `busy` is None when it failed."""
        self._touching = False
        if self.phase == "touching":
            return [EndTouch(finished=False), RetryLater(TOUCH_RETRY_S)]
        if self.phase != "notifying" or not self.rotation:
            return []
        self.phase = "serving"
        self._owed = busy or ()
        if self._owed and not self._queue and not self._to_freeze:
            return [EndTouch(finished=False), RetryLater(NOTIFY_RETRY_S)]
        return self._finish_rotation()

    def _finish_rotation(self) -> list[Effect]:
        self.rotation = None
        self._owed = ()
        return [EndTouch(finished=True), *self._next_rotation()]

    def retry(self) -> list[Effect]:
        """Try again what did not work; the wait may have been for an earlier rotation."""
        if self.phase == "freezing":
            return self._freezing.begin() if self._worker_ready else []
        if self._unfinished and self.phase == "serving":
            self._unfinished = False
            return [EndTouch(finished=True)]
        return [] if self._touching or not self.rotation else self._retry_rotation(self.rotation)

    def _retry_rotation(self, rotation: Rotation) -> list[Effect]:
        match self.phase:
            case "swapping" if self._unsent:
                self._unsent = False
                return [SendSwap(rotation)]
            case "touching":
                return self._touch(rotation)
            case "serving" if self._owed:
                self.phase = "notifying"
                return self._touch(rotation, self._owed)
            case _:
                return []

    # Freezing

    def freeze(self) -> list[Effect]:
        """Let the volume outlive this process, once what is under way is done. There is no return.

        One that no pod has seen yet is given up.
        """
        if self._publishing:
            return self._give_up(_frozen())
        self._to_freeze = True
        refused = [effect for rotation in self._queue for effect in _refuse(rotation)]
        self._queue.clear()
        return [*refused, *self._next_rotation()]

    def _begin_to_freeze(self) -> list[Effect]:
        if not self._worker_ready:
            return []
        self.phase = "freezing"
        self.rotation = None
        self._owed = ()
        return [EndTouch(finished=True), *self._freezing.begin()]

    def worker_freezes(self) -> list[Effect]:
        """Take note that the worker gives out no handle any more."""
        return self._freezing.worker_freezes() if self.phase == "freezing" else []

    def filled(self, *, succeeded: bool) -> list[Effect]:
        """Take note that the child that fills the kernel's caches has ended."""
        return self._freezing.filled(succeeded=succeeded) if self.phase == "freezing" else []

    def drained(self) -> list[Effect]:
        """Let go: nobody uses a handle any more, or for too long."""
        found = self._freezing.drained() if self.phase == "freezing" else []
        if found:
            self.phase = "closed"
        return found

    # Trouble and the end

    def worker_died(self, *, lived_s: float) -> list[Effect]:
        """Replace the worker, ever later when it keeps dying young."""
        if self.phase == "closed":
            return []
        ready, self._worker_ready = self._worker_ready, False
        self._unsent = False
        self._freezing.worker_died()
        served = ready and not self._publishing
        delay_s = self._backoff.died(served=served, lived_s=lived_s)
        if self._publishing and self._backoff.never_served >= MAX_START_FAILURES:
            return self._give_up(VolumeFailed("its worker keeps dying; see the keeper's log"))
        return [StartWorker(delay_s)]

    def effect_failed(self, effect: Effect, error: Exception) -> list[Effect]:
        """Give the volume up while it comes up; afterwards an effect is tried again."""
        if self.phase == "closed":
            return []
        if self._publishing:
            known = isinstance(error, KeeperError)
            return self._give_up(error if known else VolumeFailed(str(error)))  # type: ignore[arg-type]
        if isinstance(effect, StartWorker):
            return self.worker_died(lived_s=0.0)
        if isinstance(effect, StartTouch):
            self._touching = False
            if self.phase == "notifying":
                self.phase = "serving"
        if isinstance(effect, SendSwap):
            self._unsent = True
        if effect == EndTouch(finished=True):
            self._unfinished = True
        if isinstance(effect, Fossilize | Fill | Drain):
            self._freezing.effect_failed()
        return [RetryLater(TOUCH_RETRY_S), *self._next_rotation()]

    def connection_lost(self) -> list[Effect]:
        """Let go: somebody aborted the connection, nothing can serve it any more.

        The target stays, dead, for the next publish to repair: an empty directory would look like
        no secrets.
        """
        shown = self.is_shown
        found = self._give_up(VolumeFailed("its FUSE connection was aborted; publish it again"))
        return [LetGo() if shown and effect == TearDown() else effect for effect in found]

    def unpublish(self) -> list[Effect]:
        """End the volume, in whatever phase it is."""
        return self._give_up(_unpublished())

    def _give_up(self, error: KeeperError) -> list[Effect]:
        if self.phase == "closed":
            return []
        waiting = list(self._publishing)
        if self.rotation and self.phase in ("swapping", "touching"):
            waiting.append(self.rotation.ticket)
        waiting.extend(rotation.ticket for rotation in self._queue)
        self.phase = "closed"
        self._publishing = []
        self._queue.clear()
        return [TearDown(), *(Answer(ticket, error) for ticket in waiting)]


def _refuse(rotation: Rotation) -> list[Effect]:
    """Take no generation in any more."""
    return [Discard(rotation.generation), Answer(rotation.ticket, _frozen())]


def _frozen() -> KeeperError:
    return VolumeFailed("the keeper ends and freezes its volumes; publish it again")


def _unpublished() -> KeeperError:
    return VolumeUnknown("the volume was unpublished meanwhile")

"""What every volume's host does, whatever its file system is.

A host carries out what the volume's state machine asks for. All that one volume owns in the keeper
hangs there, so that tearing it down is one place.
"""

import abc
import contextlib
import logging
from collections.abc import Callable
from typing import ClassVar

import attrs

from fusefs import effects, protocol
from fusefs.children import Children
from fusefs.config import PER_SECOND, Takeover
from fusefs.errors import FusefsError, VolumeFailed
from fusefs.kept import KeptGenerations
from fusefs.loop import Loop, Timer
from fusefs.privatemount import PrivateMount
from fusefs.target import Target
from fusefs.volume import Volume

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Place:
    """Where a volume lives in the keeper.

    Attributes:
        slot: The lowest free number; private directory and uid follow from it.
        private: The directory of the private mount, in the keeper's mount namespace only.
        uid: User and group id of the processes that serve the volume.
        user_namespace: Whether the pod has a user namespace of its own.
        selinux_context: The label of all files, empty for none.
        required_flags: INIT flags without which the kernel cannot carry a FUSE volume.
        takeover: How a worker comes to what its predecessor had in work.
        per_second: How many requests are served in a second.
    """

    slot: int
    private: str
    uid: int
    user_namespace: bool = False
    selinux_context: str = ""
    required_flags: int = 0
    takeover: Takeover = "auto"
    per_second: int = PER_SECOND


@attrs.frozen(kw_only=True)
class Owner:
    """Who hears of a volume.

    Attributes:
        answer: Answers a request.
        announce: Tells what is to be held of the volume from now on.
        closed: Called when nothing of the volume is left on the node.
        gone: Called when its processes have ended too, so that their uid may be given away.
    """

    answer: Callable[[effects.Ticket, Exception | None], None]
    announce: Callable[[protocol.KeeperNotice, tuple[int, ...]], None]
    closed: Callable[["Host"], None]
    gone: Callable[["Host"], None]


class Host(abc.ABC):
    """One volume with all that it owns.

    Attributes:
        filesystem: What the target shows.
        reason: Why it is not what it is by default; empty when it is.
        volume_id: The CSI volume id.
        record: What a new node server needs to go on; opaque here.
        kept: The generations held.
        state: The state machine.
    """

    filesystem: ClassVar[protocol.Filesystem]
    reason: str = ""

    def __init__(
        self,
        loop: Loop,
        place: Place,
        held: Target,
        kept: KeptGenerations,
        owner: Owner,
        *,
        volume_id: str,
        record: bytes,
        state: Volume,
    ) -> None:
        """Own `held` and `kept` from now on; `begin` starts the volume."""
        self.volume_id = volume_id
        self.record = record
        self.place = place
        self.kept = kept
        self.state = state
        self._loop = loop
        self._target = held
        self._owner = owner
        self._children = Children(loop)
        self._timers: list[Timer] = []
        self._is_held = state.is_shown

    @property
    def target_path(self) -> str:
        """The target as kubelet named it."""
        return self._target.path

    @property
    def left_in(self) -> tuple[str, ...]:
        """Containers that still see what was at the target before; only a restart helps them."""
        return tuple(sorted(self._target.left_in))

    @property
    @abc.abstractmethod
    def worker_pid(self) -> int | None:
        """The worker, None when there is none."""

    @property
    @abc.abstractmethod
    def memory_bytes(self) -> int:
        """What the volume takes of the memory that all volumes share."""

    def begin(self) -> None:
        """Start to publish, or go on serving."""
        self._carry_out(self.state.begin())

    def publish_again(self, ticket: effects.Ticket) -> None:
        """Answer when the target shows the volume; put it there again if somebody unmounted it.

        Raises:
            TargetRefused: Something else has come to be there.
        """
        if self.state.is_shown and not self._mounted.is_on(self._target):
            log.warning("the target was unmounted; it is mounted again", extra=self._fields())
            self._mounted.attach(self._target)
        self._carry_out(self.state.publish_again(ticket))

    def rotate(self, rotation: effects.Rotation) -> None:
        """Bring in a generation that `kept` holds already."""
        self._carry_out(self.state.rotate(rotation))

    def unpublish(self) -> None:
        """Leave nothing of the volume."""
        self._carry_out(self.state.unpublish())

    def freeze(self) -> None:
        """Leave the volume readable at its target, and nothing else."""
        self._carry_out(self.state.freeze())

    @abc.abstractmethod
    def holdings(self) -> list[tuple[protocol.KeeperNotice, tuple[int, ...]]]:
        """Return what tells all that is to be held of the volume, with the descriptors."""

    def announce(self) -> None:
        """Tell what is to be held of the volume, all of it."""
        self._is_held = True
        for notice, descriptors in self.holdings():
            self._owner.announce(notice, descriptors)

    # The state machine's effects

    def _carry_out(self, wanted: list[effects.Effect]) -> None:
        """Carry out each effect, also after one that failed: the answers come last."""
        for effect in wanted:
            name = type(effect).__name__
            try:
                self._carry_out_one(effect)
            except (OSError, FusefsError) as error:
                log.warning("%s failed: %s", name, error, extra=self._fields())
                self._carry_out(self.state.effect_failed(effect, error))
            except Exception as error:  # a defect of ours, and yet the request must be answered
                log.exception("%s failed", name, extra=self._fields())
                self._carry_out(self.state.effect_failed(effect, error))

    @abc.abstractmethod
    def _carry_out_one(self, effect: effects.Effect) -> None: ...

    @property
    @abc.abstractmethod
    def _mounted(self) -> PrivateMount:
        """The volume's file system."""

    def _later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._timers = [timer for timer in self._timers if timer.callback is not None]
        self._timers.append(self._loop.call_later(delay_s, callback))

    def _target_cleared(self, code: int) -> None:
        if code:
            message = f"target {self.target_path!r} could not be emptied; see the keeper's log"
            self._carry_out(self.state.effect_failed(effects.ClearTarget(), VolumeFailed(message)))
            return
        if self.left_in:
            log.warning(
                "a dead or frozen volume was detached; restart what still sees it: %s",
                ", ".join(self.left_in),
                extra=self._fields(),
            )
        self._carry_out(self.state.target_cleared())

    # The end

    def _tear_down(self, *, keep_target: bool = False) -> None:
        """Leave nothing: the file system first, the target last, and no path on the mount ever."""
        for timer in self._timers:
            timer.cancel()
        with contextlib.ExitStack() as last:
            # In reverse order, and each of them whatever happens to the others.
            last.callback(self._owner.closed, self)
            last.callback(self._target.close)
            last.callback(self.kept.close)
            last.callback(self._abandon)
            if self._is_held:
                last.callback(self._owner.announce, protocol.LetGo(self.volume_id), ())
            if not keep_target:
                last.callback(self._target.detach)
            last.callback(self._unmount)

    @abc.abstractmethod
    def _unmount(self) -> None:
        """Let go of the file system."""

    def _abandon(self) -> None:
        """End all processes; the last of them that is reaped gives the volume's place free."""
        self._children.abandon(lambda: self._owner.gone(self))

    def _fields(self) -> dict[str, str]:
        return {"volume_id": self.volume_id}

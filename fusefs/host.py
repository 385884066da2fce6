"""Carries out what a volume's state machine asks for: mounts, processes, descriptors.

Everything that one volume owns in the keeper hangs here, so that tearing it down is one place.
"""

import contextlib
import functools
import logging
import os
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Final

import attrs

from fusefs import (
    children,
    effects,
    initmsg,
    plan,
    protocol,
    sandbox,
    succession,
    touch,
    volume,
    worker,
)
from fusefs.connection import Connection
from fusefs.emptying import empty_target
from fusefs.errors import FusefsError, VolumeFailed
from fusefs.kept import KeptGenerations
from fusefs.loop import Loop, Timer
from fusefs.target import Target
from fusefs.usage import Usage

log = logging.getLogger(__name__)

READ_ONLY_RETRY_S: Final = 0.1
SWEEP_S: Final = 5.0


@attrs.frozen(kw_only=True)
class Place:
    """Where a volume lives in the keeper.

    Attributes:
        slot: The lowest free number; private directory and uid follow from it.
        private: The directory of the private mount, in the keeper's mount namespace only.
        uid: The worker's user and group id.
        required_flags: INIT flags without which the kernel cannot carry a volume.
    """

    slot: int
    private: str
    uid: int
    required_flags: int = initmsg.FUSE_HAS_RESEND


@attrs.frozen(kw_only=True)
class Adopted:
    """What a volume goes on with that a keeper before served.

    Attributes:
        connection: Its FUSE connection, mounted here.
        usage: The page of counts.
    """

    connection: Connection
    usage: int


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
    closed: Callable[["VolumeHost"], None]
    gone: Callable[["VolumeHost"], None]


class VolumeHost:
    """One volume with all that it owns.

    Attributes:
        volume_id: The CSI volume id.
        record: What a new node server needs to go on; opaque here.
        kept: The generations held.
        state: The state machine.
    """

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
        state: volume.Volume,
        adopted: Adopted | None = None,
    ) -> None:
        """Own `held` and `kept`, and what is adopted, from now on; `begin` starts the volume."""
        self.volume_id = volume_id
        self.record = record
        self.place = place
        self.kept = kept
        self.state = state
        self._loop = loop
        self._target = held
        self._owner = owner
        self._connection = adopted.connection if adopted else None
        self._usage = adopted.usage if adopted else Usage.create()
        self._is_held = adopted is not None
        self._workers = succession.Succession(
            loop,
            self._assignment,
            succession.Listener(
                ready=self._worker_ready, spoke=self._worker_spoke, ended=self._worker_ended
            ),
            volume_id=volume_id,
        )
        self._children = children.Children(loop)
        self._timers: list[Timer] = []

    @property
    def target_path(self) -> str:
        """The target as kubelet named it."""
        return self._target.path

    @property
    def worker_pid(self) -> int | None:
        """The worker, None while it is being replaced."""
        return self._workers.pid

    def begin(self) -> None:
        """Start to publish, or go on serving."""
        if self.state.is_shown:
            self.kept.supersede(self.state.acknowledged)
            self._later(SWEEP_S, self._sweep_and_reschedule)
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
        if self.state.owed:
            log.info("events of %d files are lost", len(self.state.owed), extra=self._fields())
        self._carry_out(self.state.rotate(rotation))

    def unpublish(self) -> None:
        """Leave nothing of the volume."""
        self._carry_out(self.state.unpublish())

    # What is to be held of the volume elsewhere

    def announce(self) -> None:
        """Tell what is to be held of the volume, all of it."""
        self._is_held = True
        plans = {rotation.generation: rotation.plan for rotation in self.state.under_way()}
        generations = self.kept.generations()
        backup = protocol.VolumeBackup(
            volume_id=self.volume_id,
            target=self.target_path,
            slot=self.place.slot,
            record=self.record,
            acknowledged=self.state.acknowledged,
            generations=tuple(
                protocol.Generation(number, plans.get(number)) for number in generations
            ),
            init_request=self._mounted.init_request,
            init_reply=self._mounted.first_reply or b"",
        )
        self._owner.announce(protocol.Hold(backup), (self._mounted.device, self._usage))
        for number in generations:
            message = protocol.HoldGeneration(self.volume_id, number)
            self._owner.announce(message, (self.kept.descriptor(number),))

    def _announce_acknowledged(self, *, finished: bool) -> None:
        message = protocol.Acknowledged(self.volume_id, self.state.acknowledged, finished)
        self._owner.announce(message, ())

    def _drop(self, generations: Sequence[int], spare: Collection[int] = ()) -> None:
        before = set(self.kept.generations())
        self.kept.drop(generations, spare=spare)
        dropped = before.difference(self.kept.generations())
        if dropped:
            self._owner.announce(protocol.Released(self.volume_id, tuple(sorted(dropped))), ())

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

    def _carry_out_one(self, effect: effects.Effect) -> None:  # noqa: C901, PLR0912 - one case an effect
        match effect:
            case effects.ClearTarget():
                empty_target(self._target, self._children, self._target_cleared)
            case effects.StartWorker(delay_s=delay):
                self._start_worker(delay)
            case effects.ReplaceWorker():
                self._workers.replace()
            case effects.StartPriming():
                self._start_child(touch.prime, self._primed)
            case effects.EndPriming():
                self._workers.tell(protocol.Primed())
            case effects.Attach():
                self._mounted.attach(self._target)
                self._later(SWEEP_S, self._sweep_and_reschedule)
                self.announce()
                self._carry_out(self.state.attached())
            case effects.SendSwap(rotation=rotation):
                message = protocol.Swap(rotation.generation, rotation.plan)
                self._workers.tell(message, [self.kept.descriptor(rotation.generation)])
            case effects.Discard(generation=generation):
                self._drop([generation])
            case effects.StartTouch(rotation=rotation, only=only):
                self._start_touch(rotation, only)
            case effects.EndTouch(finished=finished):
                self._make_read_only()
                if finished:
                    self._workers.tell(protocol.Finish())
                    self._announce_acknowledged(finished=True)
            case effects.Answer(ticket=ticket, error=error):
                self._owner.answer(ticket, error)
            case effects.RetryLater(delay_s=delay):
                self._later(delay, lambda: self._carry_out(self.state.retry()))
            case effects.TearDown():
                self._tear_down()

    def _later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._timers = [timer for timer in self._timers if timer.callback is not None]
        self._timers.append(self._loop.call_later(delay_s, callback))

    @property
    def _mounted(self) -> Connection:
        if self._connection is None:
            self._connection = Connection.open(self.place.private)
            self._connection.require(self.place.required_flags)
        return self._connection

    # Target

    def _target_cleared(self, code: int) -> None:
        if code:
            message = f"target {self.target_path!r} could not be emptied; see the keeper's log"
            self._carry_out(self.state.effect_failed(effects.ClearTarget(), VolumeFailed(message)))
        else:
            self._carry_out(self.state.target_cleared())

    # The worker

    def _start_worker(self, delay_s: float) -> None:
        if delay_s > 0:
            self._later(delay_s, lambda: self._carry_out([effects.StartWorker()]))
        else:
            self._workers.start()

    def _assignment(self, control: socket.socket, root: int) -> worker.Assignment:
        return worker.Assignment(
            device=self._mounted.device,
            control=control,
            usage=self._usage,
            root=root,
            init_request=self._mounted.init_request,
            first_reply=self._mounted.first_reply,
            snapshots=tuple(self.kept.descriptors(up_to=self.state.served)),
            pending=self.state.served if self.state.rotation else None,
            plan=self.state.plan_in_progress,
            primed=self.state.primed,
            uid=self.place.uid,
            keeper=os.getpid(),
        )

    def _worker_ready(self, reply: bytes) -> None:
        self._mounted.first_reply = self._mounted.first_reply or reply
        self._carry_out(self.state.worker_ready())

    def _worker_spoke(self, message: protocol.FromWorker) -> None:
        match message:
            case protocol.PrimingEnded():
                self._carry_out(self.state.priming_ended())
            case protocol.Swapped(generation=generation):
                self._carry_out(self.state.swapped(generation))
            case protocol.Rejected(generation=generation, text=text):
                self._carry_out(self.state.rejected(generation, text))
            case protocol.Dropped(generations=generations):
                self._drop(generations, spare=self.state.spared())

    def _worker_ended(self, lived_s: float) -> None:
        if self._mounted.is_dead():
            self._carry_out(self.state.connection_lost())
        else:
            self._carry_out(self.state.worker_died(lived_s=lived_s))

    # Children in the private mount

    def _start_child(
        self,
        function: Callable[[], int],
        ended: Callable[[int], None],
        descriptors: tuple[int, ...] = (),
    ) -> None:
        mount = self._mounted.open_mount()
        try:
            self._children.start(
                function,
                ended,
                directory=mount,
                identity=sandbox.Identity(
                    uid=self.place.uid, capabilities=(sandbox.CAP_DAC_OVERRIDE,)
                ),
                descriptors=descriptors,
            )
        finally:
            os.close(mount)

    def _primed(self, code: int) -> None:
        self._carry_out(self.state.primed_by_child(succeeded=code == 0))

    def _start_touch(self, rotation: effects.Rotation, only: tuple[str, ...] | None) -> None:
        self._mounted.set_writable(writable=True)
        device = self._mounted.device
        forgotten = [number for number in self.kept.generations() if number < rotation.generation]
        report = touch.Report(self._loop, self._touch_acknowledged)

        def run() -> int:
            steps = plan.decode(rotation.plan)
            if only is None:
                touch.carry_out(steps, report.child_end)
                touch.forget_generations(device, forgotten)
            touch.notify(steps.changed if only is None else only, report.child_end)
            return 0

        try:
            self._start_child(
                run,
                functools.partial(self._touch_ended, report),
                descriptors=(device, report.child_end.fileno()),
            )
        finally:
            report.close_child_end()

    def _touch_acknowledged(self) -> None:
        wanted = self.state.touch_acknowledged()
        if wanted:
            self._announce_acknowledged(finished=False)
        self._carry_out(wanted)

    def _touch_ended(self, report: touch.Report, code: int) -> None:
        report.finish()
        self.kept.supersede(self.state.acknowledged)
        if code and self.state.phase == "notifying":
            log.error("file events of a rotation were lost", extra=self._fields())
        self._carry_out(self.state.touch_ended(busy=report.busy))
        self._sweep()

    def _make_read_only(self) -> None:
        if not self._mounted.set_writable(writable=False):
            self._later(READ_ONLY_RETRY_S, self._make_read_only_if_idle)

    def _make_read_only_if_idle(self) -> None:
        if self.state.phase == "serving":
            self._make_read_only()

    # Retention

    def _sweep_and_reschedule(self) -> None:
        self._later(SWEEP_S, self._sweep_and_reschedule)
        self._sweep()

    def _sweep(self) -> None:
        """Offer the worker the generations that may go; it knows best which are in use."""
        idle, excess = self.kept.removable(spare=self.state.spared())
        if excess:
            self._workers.tell(protocol.Drop(tuple(excess), forced=True))
        if idle:
            self._workers.tell(protocol.Drop(tuple(idle), forced=False))

    # The end

    def _tear_down(self) -> None:
        """Leave nothing: the connection first, the target last, and no path on the mount ever."""
        for timer in self._timers:
            timer.cancel()
        with contextlib.ExitStack() as last:
            # In reverse order, and each of them whatever happens to the others.
            last.callback(self._owner.closed, self)
            last.callback(self._target.close)
            last.callback(self.kept.close)
            last.callback(os.close, self._usage)
            last.callback(self._abandon)
            if self._is_held:
                last.callback(self._owner.announce, protocol.LetGo(self.volume_id), ())
            last.callback(self._target.detach)
            if self._connection is not None:
                last.callback(self._connection.close)

    def _abandon(self) -> None:
        """End all processes; the last of them that is reaped gives the volume's place free."""

        def children_gone() -> None:
            self._owner.gone(self)

        self._workers.abandon(lambda: self._children.abandon(children_gone))

    def _fields(self) -> dict[str, str]:
        return {"volume_id": self.volume_id}

"""Carries out what a volume's state machine asks for: mounts, processes, descriptors.

Everything one volume owns in the keeper hangs here, so that tearing it down is one place.
"""

import errno
import functools
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Final

import attrs
import msgspec

from fusefs import children, initmsg, mounts, plan, protocol, sandbox, target, touch, volume, worker
from fusefs.errors import FusefsError, KernelUnsupported, VolumeFailed
from fusefs.kept import KeptGenerations
from fusefs.loop import Loop, Timer
from fusefs.target import KubeletRoot, Target
from fusefs.usage import Usage

log = logging.getLogger(__name__)

INIT_TIMEOUT_S: Final = 2.0
CHILD_DEADLINE_S: Final = 20.0
READY_DEADLINE_S: Final = 10.0
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


class VolumeHost:
    """One volume with all that it owns.

    Attributes:
        volume_id: The CSI volume id.
        target: Where it is, or is to be, shown.
        record: What a new node server needs to go on; opaque here.
        worker_pid: The worker, while there is one.
    """

    def __init__(
        self,
        loop: Loop,
        place: Place,
        held: Target,
        kept: KeptGenerations,
        answer: Callable[[volume.Ticket, Exception | None], None],
        *,
        volume_id: str,
        record: bytes,
        ticket: volume.Ticket,
        on_closed: Callable[["VolumeHost"], None],
    ) -> None:
        """Own `held` and `kept` from now on; `begin` starts the volume."""
        self.volume_id = volume_id
        self.record = record
        self.place = place
        self.kept = kept
        self.state = volume.Volume(kept.newest, ticket)
        self.worker_pid: int | None = None
        self._loop = loop
        self._target = held
        self._answer = answer
        self._on_closed = on_closed
        self._device: int | None = None
        self._init_request = b""
        self._first_reply: bytes | None = None
        self._usage = Usage.create()
        self._control: socket.socket | None = None
        self._started_at = 0.0
        self._timers: list[Timer] = []
        self._children: set[int] = set()

    @property
    def target_path(self) -> str:
        """The target as kubelet named it."""
        return self._target.path

    # The state machine's effects

    def begin(self) -> None:
        """Start to publish."""
        self._carry_out(self.state.begin())

    def rotate(self, rotation: volume.Rotation) -> None:
        """Bring in a generation that `kept` holds already."""
        self._carry_out(self.state.rotate(rotation))

    def unpublish(self) -> None:
        """Leave nothing of the volume."""
        self._carry_out(self.state.unpublish())

    def _carry_out(self, effects: list[volume.Effect]) -> None:
        for effect in effects:
            try:
                self._effects(effect)
            except (OSError, FusefsError) as error:
                log.warning(
                    "an effect on the volume failed: %s: %s",
                    type(effect).__name__,
                    error,
                    extra={"volume_id": self.volume_id},
                )
                self._carry_out(self.state.effect_failed(error))
                return

    def _effects(self, effect: volume.Effect) -> None:
        match effect:
            case volume.ClearTarget():
                self._clear_target()
            case volume.StartWorker(delay_s=delay):
                self._later(delay, self._start_worker)
            case volume.StartPriming():
                self._start_child(touch.prime, self._primed)
            case volume.EndPriming():
                self._tell(protocol.Primed())
            case volume.Attach():
                self._attach()
            case volume.SendSwap(rotation=rotation):
                message = protocol.Swap(rotation.generation, rotation.plan)
                self._tell(message, [self.kept.descriptor(rotation.generation)])
            case volume.StartTouch(rotation=rotation, only=only):
                self._start_touch(rotation, only)
            case volume.EndTouch(finished=finished):
                self._make_read_only()
                if finished:
                    self._tell(protocol.Finish())
            case volume.Answer(ticket=ticket, error=error):
                self._answer(ticket, error)
            case volume.RetryLater(delay_s=delay):
                self._later(delay, lambda: self._carry_out(self.state.retry()))
            case volume.TearDown():
                self._tear_down()

    def _later(self, delay_s: float, callback: Callable[[], None]) -> None:
        if delay_s <= 0:
            callback()
            return
        self._timers.append(self._loop.call_later(delay_s, callback))

    # Target and mount

    def _clear_target(self) -> None:
        directory = self._target.open()
        if target.is_empty(directory):
            os.close(directory)
            self._target_cleared(0)
            return
        flags = os.O_RDONLY | os.O_DIRECTORY
        try:
            readable = os.open(f"/proc/self/fd/{directory}", flags)
        finally:
            os.close(directory)

        def clear() -> int:
            target.empty(readable)
            return 0

        try:
            self._start_child(clear, self._target_cleared, directory=readable, uid=0)
        finally:
            os.close(readable)

    def _target_cleared(self, code: int) -> None:
        if code:
            message = f"target {self.target_path!r} could not be emptied; see the keeper's log"
            self._carry_out(self.state.effect_failed(VolumeFailed(message)))
            return
        self._carry_out(self.state.target_cleared())

    def _mount(self) -> None:
        """Mount the private mount and read INIT, which the kernel sends at once and only once."""
        os.mkdir(self.place.private, 0o700)
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        mounts.mount_fuse(self._device, self.place.private)
        poll = select.poll()
        poll.register(self._device, select.POLLIN)
        if not poll.poll(INIT_TIMEOUT_S * 1000):
            message = "the kernel sent no INIT request"
            raise VolumeFailed(message)
        self._init_request = os.read(self._device, initmsg.READ_BUFFER_BYTES)
        missing = self.place.required_flags & ~initmsg.offered_flags(self._init_request)
        if missing:
            message = (
                "this kernel does not offer FUSE RESEND (Linux 6.9 or newer has it), without which "
                "a volume would not survive its worker; run this node on a newer kernel"
            )
            raise KernelUnsupported(message)

    def _attach(self) -> None:
        mount = mounts.open_mount(self.place.private)
        try:
            directory = self._target.open()
            try:
                mounts.attach_read_only_clone(mount, directory)
            finally:
                os.close(directory)
        finally:
            os.close(mount)
        self._schedule_sweep()
        self._carry_out(self.state.attached())

    def _make_read_only(self) -> None:
        try:
            self._set_writable(writable=False)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            self._later(READ_ONLY_RETRY_S, self._make_read_only_if_idle)

    def _make_read_only_if_idle(self) -> None:
        if self.state.phase == "serving":
            self._make_read_only()

    def _set_writable(self, *, writable: bool) -> None:
        mount = mounts.open_mount(self.place.private)
        try:
            mounts.set_superblock_writable(mount, writable=writable)
        finally:
            os.close(mount)

    # The worker

    def _start_worker(self) -> None:
        if self.state.phase == "closed":
            return
        if self._device is None:
            self._mount()
        assert self._device is not None  # noqa: S101 - mounted above, for the type checker
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = sandbox.empty_root()
        assignment = worker.Assignment(
            device=self._device,
            control=theirs,
            usage=self._usage,
            root=root,
            init_request=self._init_request,
            first_reply=self._first_reply,
            snapshots=tuple(self.kept.descriptors()),
            plan=self.state.plan_in_progress,
            primed=self.state.primed,
            uid=self.place.uid,
            keeper=os.getpid(),
        )
        pid = children.fork(lambda: worker.run(assignment))
        theirs.close()
        os.close(root)
        ours.setblocking(False)
        self._control, self.worker_pid, self._started_at = ours, pid, time.monotonic()
        self._loop.watch(ours.fileno(), self._worker_speaks)
        self._loop.watch_child(pid, functools.partial(self._worker_ended, pid))
        self._later(READY_DEADLINE_S, functools.partial(self._expect_ready, pid))

    def _expect_ready(self, pid: int) -> None:
        if self.worker_pid == pid and not self.state.worker_is_ready:
            log.error("the worker is not ready in time; it is replaced", extra=self._fields())
            os.kill(pid, 9)

    def _worker_speaks(self) -> None:
        assert self._control is not None  # noqa: S101 - watched only while it exists
        try:
            received = protocol.receive(self._control, protocol.FROM_WORKER)
        except ConnectionError:
            received = None
        if received is None:
            self._drop_control()  # its pidfd says the rest
            return
        message, descriptors = received
        for descriptor in descriptors:
            os.close(descriptor)
        match message:
            case protocol.Ready(reply=reply):
                self._first_reply = self._first_reply or reply
                self._carry_out(self.state.worker_ready())
            case protocol.PrimingEnded():
                self._carry_out(self.state.priming_ended())
            case protocol.Swapped(generation=generation):
                self._carry_out(self.state.swapped(generation))
            case protocol.Dropped(generations=generations):
                self.kept.drop(generations, spare=self.state.spared())

    def _worker_ended(self, pid: int, code: int) -> None:
        lived = time.monotonic() - self._started_at
        log.warning(
            "the worker ended with %s after %.1f s",
            code,
            lived,
            extra={**self._fields(), "pid": pid},
        )
        self.worker_pid = None
        self._drop_control()
        if self.state.phase != "closed" and self._connection_is_dead():
            self._carry_out(self.state.connection_lost())
            return
        self._carry_out(self.state.worker_died(lived_s=lived))

    def _connection_is_dead(self) -> bool:
        """Whether the kernel aborted the connection: its device then polls as an error."""
        if self._device is None:
            return False
        poll = select.poll()
        poll.register(self._device, 0)
        return bool(poll.poll(0))

    def _drop_control(self) -> None:
        if self._control is not None:
            self._loop.unwatch(self._control.fileno())
            self._control.close()
            self._control = None

    def _tell(self, message: protocol.Message, descriptors: list[int] | None = None) -> None:
        """Send to the worker; one that is gone has a successor that learns it all at its start."""
        if self._control is None:
            return
        try:
            protocol.send(self._control, message, descriptors or [])
        except (ConnectionError, BlockingIOError) as error:
            log.warning("the worker does not listen: %s", error, extra=self._fields())
            if self.worker_pid is not None:
                os.kill(self.worker_pid, 9)

    # Children

    def _start_child(
        self,
        function: Callable[[], int],
        ended: Callable[[int], None],
        *,
        directory: int | None = None,
        descriptors: tuple[int, ...] = (),
        uid: int | None = None,
    ) -> None:
        """Run `function` in a child, in the private mount unless `directory` says where else."""
        here = mounts.open_mount(self.place.private) if directory is None else directory
        keeper = os.getpid()
        identity = sandbox.Identity(
            uid=self.place.uid if uid is None else uid, capability=sandbox.CAP_DAC_OVERRIDE
        )

        def run() -> int:
            children.enter(descriptors, identity, keeper=keeper, directory=here)
            return function()

        pid = children.fork(run)
        if directory is None:
            os.close(here)
        self._children.add(pid)
        deadline = self._loop.call_later(CHILD_DEADLINE_S, lambda: os.kill(pid, 9))

        def reaped(code: int) -> None:
            deadline.cancel()
            self._children.discard(pid)
            if self.state.phase != "closed":
                ended(code)

        self._loop.watch_child(pid, reaped)

    def _primed(self, code: int) -> None:
        self._carry_out(self.state.primed_by_child(succeeded=code == 0))

    def _start_touch(self, rotation: volume.Rotation, only: tuple[str, ...] | None) -> None:
        self._set_writable(writable=True)
        assert self._device is not None  # noqa: S101 - a volume that serves has one
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        device = self._device
        forgotten = [number for number in self.kept.generations() if number != rotation.generation]

        def run() -> int:
            steps = plan.decode(rotation.plan)
            if only is None:
                touch.carry_out(steps, theirs)
                touch.forget_generations(device, forgotten)
            touch.notify(steps.changed if only is None else only, theirs)
            return 0

        report = _TouchReport(ours)
        self._loop.watch(ours.fileno(), lambda: self._touch_speaks(report))
        try:
            self._start_child(
                run,
                lambda code: self._touch_ended(report, code),
                descriptors=(device, theirs.fileno()),
            )
        except OSError:
            self._close_report(report)
            raise
        finally:
            theirs.close()

    def _touch_speaks(self, report: "_TouchReport") -> None:
        packet = report.connection.recv(protocol.INLINE_BYTES)
        if packet == touch.ACKNOWLEDGED:
            self._carry_out(self.state.touch_acknowledged())
        elif packet:
            report.busy = tuple(msgspec.msgpack.decode(packet, type=list[str]))
        else:
            self._close_report(report)

    def _touch_ended(self, report: "_TouchReport", code: int) -> None:
        while not report.closed:  # what it said before it ended
            self._touch_speaks(report)
        self.kept.supersede(self.state.acknowledged)
        if code and self.state.phase == "notifying":
            log.error("file events of a rotation were lost", extra=self._fields())
        busy = (report.busy or ()) if code == 0 else None
        self._carry_out(self.state.touch_ended(busy=busy))
        self._sweep()

    def _close_report(self, report: "_TouchReport") -> None:
        if not report.closed:
            report.closed = True
            self._loop.unwatch(report.connection.fileno())
            report.connection.close()

    # Retention

    def _schedule_sweep(self) -> None:
        self._later(SWEEP_S, self._sweep_and_reschedule)

    def _sweep_and_reschedule(self) -> None:
        if self.state.phase != "closed":
            self._timers = [timer for timer in self._timers if timer.callback is not None]
            self._sweep()
            self._schedule_sweep()

    def _sweep(self) -> None:
        """Offer the worker the generations that may go; it knows best which are in use."""
        idle, excess = self.kept.removable(spare=self.state.spared())
        if excess:
            self._tell(protocol.Drop(tuple(excess), forced=True))
        if idle:
            self._tell(protocol.Drop(tuple(idle), forced=False))

    # The end

    def _tear_down(self) -> None:
        """Abort, then detach, then remove: never the other way round, and never a path on the mount."""
        for timer in self._timers:
            timer.cancel()
        self._drop_control()
        mounts.abort_and_detach(self.place.private)
        if self.worker_pid is not None:
            os.kill(self.worker_pid, 9)
        for pid in self._children:
            os.kill(pid, 9)
        if self._device is not None:
            os.close(self._device)
            self._device = None
        os.close(self._usage)
        self.kept.close()
        try:
            self._target.remove()
        finally:
            self._target.close()
            try:
                os.rmdir(self.place.private)
            except FileNotFoundError:
                log.debug("the volume was never mounted", extra=self._fields())
            self._on_closed(self)

    def _fields(self) -> dict[str, str]:
        return {"volume_id": self.volume_id}


@attrs.define
class _TouchReport:
    connection: socket.socket
    busy: tuple[str, ...] | None = None
    closed: bool = False

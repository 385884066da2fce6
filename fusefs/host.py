"""Carries out what a FUSE volume's state machine asks for: mounts, processes, descriptors."""

import functools
import logging
import os
import socket
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, Final

import attrs
from typing_extensions import override

from fusefs import (
    effects,
    initmsg,
    protocol,
    succession,
    touch,
    volume,
    worker,
)
from fusefs.basehost import Host, Owner, Place
from fusefs.connection import Connection
from fusefs.emptying import empty_target
from fusefs.errors import VolumeFailed
from fusefs.filesystems import WORKER_BYTES
from fusefs.kept import KeptGenerations
from fusefs.loop import Loop
from fusefs.target import Target
from fusefs.usage import Usage
from fusefs.visits import Visits

log = logging.getLogger(__name__)

READ_ONLY_RETRY_S: Final = 0.1
SWEEP_S: Final = 5.0
DRAIN_S: Final = 2.0  # for readers that hold a file open while the volume is frozen


@attrs.frozen(kw_only=True)
class Adopted:
    """What a volume goes on with that a keeper before served.

    Attributes:
        connection: Its FUSE connection, mounted here.
        usage: The page of counts.
        standing_by: Set while another keeper serves it: called when a worker stands by, with True,
            or cannot serve, with False.
    """

    connection: Connection
    usage: int
    standing_by: Callable[[bool], None] | None = None


class VolumeHost(Host):
    """One FUSE volume with all that it owns."""

    filesystem: ClassVar[protocol.Filesystem] = "fuse"

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
        super().__init__(
            loop, place, held, kept, owner, volume_id=volume_id, record=record, state=state
        )
        self._visits = Visits(loop, self._children, lambda: self._mounted, kept, uid=place.uid)
        self._connection = adopted.connection if adopted else None
        self._usage = adopted.usage if adopted else Usage.create()
        self._workers = succession.Succession(
            loop,
            self._assignment,
            succession.Listener(
                ready=self._worker_ready,
                spoke=self._worker_spoke,
                ended=self._worker_ended,
                broken=self._worker_found_broken,
                hopeless=lambda: self._carry_out(self.state.connection_lost()),
                standing_by=functools.partial(self._stands_by, True),  # noqa: FBT003 - a callback
                refused=functools.partial(self._stands_by, False),  # noqa: FBT003
            ),
            volume_id=volume_id,
            standby=adopted is not None and adopted.standing_by is not None,
        )
        self._standing_by = adopted.standing_by if adopted else None

    @property
    @override
    def worker_pid(self) -> int | None:
        return self._workers.pid

    @property
    @override
    def memory_bytes(self) -> int:
        return WORKER_BYTES + self.kept.size

    @override
    def begin(self) -> None:
        if self.state.is_shown:
            self.kept.supersede(self.state.acknowledged)
            if self._standing_by is None:
                self._later(SWEEP_S, self._sweep_and_reschedule)
        super().begin()

    # Handover

    def serve(self, *, recover: bool) -> None:
        """Let the worker that stands by serve; with `recover`, what was taken before as well."""
        self._standing_by = None
        self._later(SWEEP_S, self._sweep_and_reschedule)
        self._workers.attach(recover=recover)

    def stop_serving(self, stopped: Callable[[bool], None]) -> None:
        """End the worker; `stopped` is called with whether all that it had taken is answered."""
        self._workers.stop(stopped)

    def serve_again(self) -> None:
        """Have a worker again."""
        if self.state.is_shown:
            self._workers.resume()
            self._carry_out([effects.StartWorker()])

    def _stands_by(self, could_serve: bool) -> None:  # noqa: FBT001 - a callback
        if self._standing_by is not None:
            self._standing_by(could_serve)

    @override
    def rotate(self, rotation: effects.Rotation) -> None:
        if self.state.owed:
            log.info("events of %d files are lost", len(self.state.owed), extra=self._fields())
        super().rotate(rotation)

    @override
    def holdings(self) -> list[tuple[protocol.KeeperNotice, tuple[int, ...]]]:
        plans = {rotation.generation: rotation.plan for rotation in self.state.under_way()}
        generations = self.kept.generations()
        backup = protocol.VolumeBackup(
            volume_id=self.volume_id,
            target=self.target_path,
            slot=self.place.slot,
            record=self.record,
            acknowledged=self.state.acknowledged,
            generations=tuple(
                protocol.Generation(number, plans.get(number), self.kept.digest(number))
                for number in generations
            ),
            init_request=self._mounted.init_request,
            init_reply=self._mounted.first_reply or b"",
            selinux_context=self.place.selinux_context,
        )
        return [
            (protocol.Hold(backup), (self._mounted.device, self._usage)),
            *(
                (protocol.HoldGeneration(self.volume_id, number), (self.kept.descriptor(number),))
                for number in generations
            ),
        ]

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

    @override
    def _carry_out_one(self, effect: effects.Effect) -> None:  # noqa: C901, PLR0912 - one case an effect
        match effect:
            case effects.ClearTarget():
                empty_target(self._target, self._children, self._target_cleared)
            case effects.StartWorker(delay_s=delay):
                self._start_worker(delay)
            case effects.ReplaceWorker():
                self._workers.replace()
            case effects.StartPriming():
                self._visits.prime(self._primed)
            case effects.EndPriming():
                self._workers.tell(protocol.Primed())
            case effects.Attach():
                self._mounted.attach(self._target)
                self._later(SWEEP_S, self._sweep_and_reschedule)
                self.announce()
                self._carry_out(self.state.attached())
            case effects.SendSwap(rotation=rotation):
                generation = rotation.generation
                message = protocol.Swap(generation, rotation.plan, self.kept.digest(generation))
                self._workers.tell(message, [self.kept.descriptor(generation)])
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
            case effects.Fossilize():
                self._fossilize()
            case effects.Fill():
                self._visits.fill(self.state.served, self._filled)
            case effects.Drain():
                self._workers.tell(protocol.Drain())
                self._later(DRAIN_S, self._drained)
            case effects.LetGo():
                self._tear_down(keep_target=True)
            case effects.TearDown():
                self._tear_down()

    @property
    @override
    def _mounted(self) -> Connection:
        if self._connection is None:
            self._connection = Connection.open(
                self.place.private, selinux_context=self.place.selinux_context
            )
            self._connection.require(self.place.required_flags)
        return self._connection

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
            digests=self.kept.digests(),
            pending=self.state.served if self.state.rotation else None,
            plan=self.state.plan_in_progress,
            primed=self.state.primed,
            uid=self.place.uid,
            keeper=os.getpid(),
            user_namespace=self._user_namespace,
            journaled=self._is_journaled,
            per_second=self.place.per_second,
        )

    @property
    def _is_journaled(self) -> bool:
        if self.place.takeover == "auto":
            offered = initmsg.offered_flags(self._mounted.init_request)
            return not offered & initmsg.FUSE_HAS_RESEND
        return self.place.takeover == "journal"

    @property
    def _user_namespace(self) -> bool:
        """Whether ids may be mapped; what the first worker told the kernel holds for ever."""
        first = self._mounted.first_reply
        return initmsg.allows_idmap(first) if first else self.place.user_namespace

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
            case protocol.Freezing():
                self._carry_out(self.state.worker_freezes())
            case protocol.Drained():
                self._drained()

    def _worker_ended(self, lived_s: float) -> None:
        if self._mounted.is_dead():
            self._carry_out(self.state.connection_lost())
        else:
            self._carry_out(self.state.worker_died(lived_s=lived_s))

    def _worker_found_broken(self, lived_s: float) -> None:
        """End the volume: no worker may show what another one has written into its memory.

        While another keeper serves it, that one goes on.
        """
        if self._standing_by is not None:
            self._stands_by(could_serve=False)
            self._worker_ended(lived_s)
        else:
            log.error("the content is not what was sealed; publish it again", extra=self._fields())
            self._carry_out(self.state.connection_lost())

    # Children in the private mount

    def _primed(self, code: int) -> None:
        self._carry_out(self.state.primed_by_child(succeeded=code == 0))

    def _start_touch(self, rotation: effects.Rotation, only: tuple[str, ...] | None) -> None:
        self._mounted.set_writable(writable=True)
        self._visits.touch(rotation, only, self._touch_acknowledged, self._touch_ended)

    def _touch_acknowledged(self) -> None:
        wanted = self.state.touch_acknowledged()
        if wanted:
            self._announce_acknowledged(finished=False)
        self._carry_out(wanted)

    def _touch_ended(self, report: touch.Report, code: int) -> None:
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

    # Freezing

    def _fossilize(self) -> None:
        """Let no write through, which drops names from the kernel's cache; so it comes first."""
        if not self._mounted.set_writable(writable=False):
            message = "a file is still open for writing"
            raise VolumeFailed(message)
        Usage.mark_frozen(self._usage)
        self._workers.tell(protocol.Freeze())

    def _filled(self, code: int) -> None:
        self._carry_out(self.state.filled(succeeded=code == 0))

    def _drained(self) -> None:
        self._carry_out(self.state.drained())

    # The end

    @override
    def _unmount(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @override
    def _abandon(self) -> None:
        os.close(self._usage)
        self._workers.abandon(super()._abandon)

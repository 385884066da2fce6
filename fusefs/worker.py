"""A worker: the process that serves one volume, and nothing else.

It is forked from the warmed keeper and gives everything up before it answers anybody. What it needs
afterwards must be imported before: there is no file system to import from.
"""

import contextlib
import hashlib
import logging
import os
import socket
import traceback
from collections.abc import Callable, Mapping
from typing import Final

import attrs
import msgspec
import trio

from fusefs import children, fossil, initmsg, packets, plan, protocol, sandbox, session, syscalls
from fusefs.config import PER_SECOND
from fusefs.errors import FusefsError, InvalidSnapshot
from fusefs.gate import Gate
from fusefs.nodes import NodeTable
from fusefs.operations import VolumeOperations
from fusefs.pace import Pace
from fusefs.snapshot import Snapshot
from fusefs.usage import Usage

log = logging.getLogger(__name__)

EXIT_ABORTED: Final = 0  # the connection ended: nothing is left to serve
EXIT_FAILED: Final = 1
EXIT_MISMATCH: Final = 3
EXIT_STOPPED: Final = 4  # as the keeper asked: all that was taken is answered
EXIT_BROKEN: Final = 5  # what is to be shown is not what was sealed


@attrs.frozen(kw_only=True)
class Assignment:
    """What a worker is forked to serve.

    Attributes:
        device: The FUSE device of the volume.
        control: The worker's end of the socket to the keeper.
        usage: The page of counts.
        root: A descriptor of the empty directory it is confined to.
        init_request: INIT as the kernel sent it.
        first_reply: The first worker's reply to INIT; None for the first worker.
        snapshots: Every generation kept, with its descriptor, oldest first.
        pending: The newest of them, when a plan leads to it that is not known to be carried out.
        plan: That plan.
        primed: Whether the mount has been primed already.
        uid: The worker's own user and group id.
        keeper: The keeper's pid.
        digests: What the snapshots in secret memory must hold, by generation.
        user_namespace: Whether the pod has a user namespace of its own.
        number: How many workers the volume has had in this keeper.
        journaled: Whether requests are noted down, for want of a kernel that sends them again.
        standby: Whether to wait, ready for service, until the keeper says `protocol.Attach`.
        per_second: How many requests of the volume are served in a second.
    """

    device: int
    control: socket.socket
    usage: int
    root: int
    init_request: bytes
    first_reply: bytes | None
    snapshots: tuple[tuple[int, int], ...]
    pending: int | None
    plan: bytes | None
    primed: bool
    uid: int
    keeper: int
    digests: Mapping[int, bytes] = attrs.field(factory=dict)
    user_namespace: bool = False
    number: int = 0
    journaled: bool = False
    standby: bool = False
    per_second: int = PER_SECOND

    def descriptors(self) -> list[int]:
        """Return every descriptor that the worker keeps."""
        return [
            self.device,
            self.control.fileno(),
            self.usage,
            self.root,
            *(fd for _, fd in self.snapshots),
        ]


def run(assignment: Assignment) -> int:
    """Serve until the connection or the keeper ends; return the exit code. Call after fork only."""
    usage = enter(assignment)
    try:
        return trio.run(live, assignment, usage)
    except session.InitMismatch:
        log.exception("this worker would negotiate other FUSE options than the first one did")
        return EXIT_MISMATCH
    except InvalidSnapshot:
        log.exception("this worker cannot show what it should")
        return EXIT_BROKEN


async def live(assignment: Assignment, usage: Usage) -> int:
    """Be a worker from its sandbox to its end; return the exit code.

    Raises:
        session.InitMismatch: The kernel was told otherwise; the connection was not touched.
        InvalidSnapshot: The content to be shown is broken; the connection was not touched.
    """
    assignment.control.settimeout(0)
    table = NodeTable(usage)
    started = await session.handshake(
        VolumeOperations(table), assignment.init_request, user_namespace=assignment.user_namespace
    )
    started.check(assignment.first_reply)
    recover = assignment.first_reply is not None
    if assignment.standby:
        told = await stand_by(assignment.control, started.reply)
        if told is None:
            return EXIT_STOPPED
        recover = told.recover
        usage.reload()
    pace = Pace(assignment.per_second)
    if assignment.journaled:
        journal = usage.journal(assignment.number)
        gate = session.journaled(started, assignment.device, pace, table.settle, journal=journal)
    else:
        gate = session.direct(started, assignment.device, pace, table.settle)
    worker = Worker(assignment, table, gate.invalidate, frozen=usage.frozen)
    return await worker.serve(gate, started, recover=recover)


async def stand_by(control: socket.socket, reply: bytes) -> protocol.Attach | None:
    """Wait for the word to serve; None when there is nothing to serve after all."""
    packets.send(control, protocol.Standby(reply))
    while True:
        await trio.lowlevel.wait_readable(control)
        received = packets.receive(control, protocol.AT_WORKER)
        match received:
            case (protocol.Attach() as told, _):
                return told
            case (protocol.Ping(), _):
                packets.send(control, protocol.Pong())
            case _:
                return None


def enter(assignment: Assignment) -> Usage:
    """Give up everything that serving does not need; return the page of counts, mapped."""
    children.reset_signals()
    sandbox.keep_only(assignment.descriptors())
    syscalls.set_process_name("akvfs-worker")
    usage = Usage(assignment.usage)
    os.close(assignment.usage)
    sandbox.limit()
    sandbox.confine(assignment.root)
    sandbox.isolate()
    sandbox.drop_privileges(sandbox.Identity(uid=assignment.uid), parent=assignment.keeper)
    return usage


class Worker:
    """Serves a table, and changes it as the keeper says."""

    def __init__(
        self,
        assignment: Assignment,
        table: NodeTable,
        invalidate: Callable[[int], bool],
        *,
        frozen: bool = False,
    ) -> None:
        """Fill `table` with what the assignment holds.

        `invalidate` makes the kernel ask again for a node's attributes, and returns whether it
        knows the node. `frozen` says that no handle may be given out any more.
        """
        self._first = assignment.first_reply is None
        self._table = table
        self._control = assignment.control
        self._invalidate = invalidate
        self._gate: Gate | None = None
        self._stopped = False
        self._adopted: protocol.Swapped | protocol.Rejected | None = None
        self._fossil = fossil.Fossil(table) if frozen else None
        self._draining = False
        digests = assignment.digests
        settled = {
            generation: (fd, digests.get(generation, b""))
            for generation, fd in assignment.snapshots
            if generation != assignment.pending
        }
        newest = max(settled)
        self._keep(newest, *settled.pop(newest), needed=True)  # first: locked memory is limited
        for generation, (fd, digest) in settled.items():
            self._keep(generation, fd, digest, needed=False)
        table.begin(newest, plan.Plan(generation=newest, previous=0))
        table.priming = not assignment.primed
        for generation, fd in assignment.snapshots:
            if generation == assignment.pending and assignment.plan is not None:
                digest = digests.get(generation, b"")
                self._adopted = self._adopt(generation, assignment.plan, fd, digest)

    def _keep(self, generation: int, fd: int, digest: bytes, *, needed: bool) -> None:
        """Keep a generation; an older one that is broken is not kept, and answers ESTALE.

        Raises:
            InvalidSnapshot: The one to be shown is broken.
        """
        try:
            self._table.keep(Snapshot.map(fd, digest))
        except InvalidSnapshot as error:
            if needed:
                raise
            log.error("generation %d is not kept: %s", generation, error)  # noqa: TRY400

    def _adopt(
        self, generation: int, encoded: bytes, fd: int, digest: bytes
    ) -> protocol.Swapped | protocol.Rejected:
        """Make a generation the current one, or leave everything as it is; return what to say.

        Snapshot and plan come from a node server that may be of another version; a worker that
        raised here would take every successor with it.
        """
        with contextlib.ExitStack() as undo:
            try:
                snapshot = Snapshot.map(fd, digest)
                undo.callback(snapshot.close)
                new_plan = plan.decode(encoded)
                self._check(generation, snapshot, new_plan)
                self._table.keep(snapshot)
            except (FusefsError, msgspec.MsgspecError, LookupError) as error:
                return protocol.Rejected(generation, f"{type(error).__name__}: {error}")
            undo.pop_all()
        self._table.begin(generation, new_plan)
        return protocol.Swapped(generation)

    def _check(self, generation: int, snapshot: Snapshot, new_plan: plan.Plan) -> None:
        if generation in self._table.generations:
            message = f"generation {generation} is served already"
            raise InvalidSnapshot(message)
        found = (snapshot.generation, new_plan.generation)
        if found != (generation, generation) or new_plan.previous not in self._table.generations:
            message = f"generation {generation} was announced, snapshot and plan are of {found}"
            raise InvalidSnapshot(message)
        for path in new_plan.changed:
            if path not in snapshot.files:
                message = "the plan changes a file that the snapshot does not have"
                raise InvalidSnapshot(message)

    async def serve(self, gate: Gate, started: session.Started, *, recover: bool) -> int:
        """Serve until the connection or the keeper ends; return the exit code."""
        self._gate = gate
        if self._first:
            session.answer_init(gate.device, started.reply)
        if recover:
            gate.recover()
            # The predecessor may have swapped and died before it told the kernel.
            self._invalidate_all(self._table.live_nodes())
        self.say_ready(started.reply)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey)
            if self._fossil is None:
                await session.serve(gate)
                if self._fossil is not None:
                    gate.reopen()
                    packets.send(self._control, protocol.Freezing())
            if self._fossil is not None and not self._stopped:
                await self._fossil.serve(gate, started.number, self._say_if_drained)
            nursery.cancel_scope.cancel()
        return EXIT_STOPPED if self._stopped else EXIT_ABORTED

    def say_ready(self, reply: bytes) -> None:
        """Tell the keeper, also what became of the generation this worker was forked with."""
        packets.send(self._control, protocol.Ready(reply))
        if self._adopted is not None:
            packets.send(self._control, self._adopted)

    async def _obey(self) -> None:
        """Follow the keeper; when it is gone the death signal has the last word."""
        while True:
            await trio.lowlevel.wait_readable(self._control)
            received = packets.receive(self._control, protocol.AT_WORKER)
            if received is None:
                self._close_gate()
                return
            self.carry_out(*received)

    def _close_gate(self) -> None:
        if self._gate is not None:
            self._gate.close()

    def carry_out(  # noqa: C901 - one case a message
        self, message: protocol.ToWorker, descriptors: list[int]
    ) -> None:
        """Do as the keeper says, and tell it."""
        match message:
            case protocol.Swap():
                self._swap(message, descriptors[0])
            case protocol.Finish():
                self._table.finish()
            case protocol.Primed():
                self._table.priming = False
                packets.send(self._control, protocol.PrimingEnded())
            case protocol.Drop(generations=generations, forced=forced):
                gone = self._table.drop(list(generations), forced=forced, is_known=self._invalidate)
                packets.send(self._control, protocol.Dropped(tuple(gone)))
            case protocol.Ping():
                packets.send(self._control, protocol.Pong())
            case protocol.Recover():
                if self._gate is not None:
                    self._gate.recover()
            case protocol.Stop():
                self._stopped = True
                self._close_gate()
            case protocol.Freeze():
                self._freeze()
            case protocol.Drain():
                self._draining = True
                self._say_if_drained()

    def _freeze(self) -> None:
        """Leave pyfuse3's loop for good, between two requests, unless that has been done."""
        if self._fossil is None:
            self._fossil = fossil.Fossil(self._table)
            self._close_gate()
        else:
            packets.send(self._control, protocol.Freezing())

    def _say_if_drained(self) -> None:
        if self._draining and self._table.is_idle():
            self._draining = False
            packets.send(self._control, protocol.Drained())

    def _swap(self, message: protocol.Swap, fd: int) -> None:
        """Make the generation current, then make the kernel ask again for what changed."""
        outcome = self._adopt(message.generation, message.plan, fd, message.digest)
        if isinstance(outcome, protocol.Swapped):
            snapshot = self._table.generations[message.generation].snapshot
            changed = [snapshot.files[path].node for path in plan.decode(message.plan).changed]
            changed.extend(entry.node for entry in snapshot.directories.values())
            self._invalidate_all(changed)
        packets.send(self._control, outcome)

    def _invalidate_all(self, nodes: list[int]) -> None:
        for node in nodes:
            self._invalidate(node)


def warm_up() -> None:
    """Import and run, before forking, what an error path would need after the chroot."""
    try:
        initmsg.offered_flags(b"")
    except ValueError:
        traceback.format_exc()
    "warm".encode("idna").decode("idna")
    hashlib.sha256(b"warm").digest()
    trio.run(trio.lowlevel.checkpoint)

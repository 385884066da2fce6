"""A worker: the process that serves one volume, and nothing else.

It is forked from the warmed keeper and gives everything up before it answers anybody. What it needs
afterwards must be imported before: there is no file system to import from.
"""

import contextlib
import logging
import os
import socket
import traceback
from typing import Final

import attrs
import msgspec
import pyfuse3
import trio

from fusefs import children, initmsg, plan, protocol, sandbox, session, syscalls
from fusefs.errors import FusefsError, InvalidSnapshot
from fusefs.nodes import NodeTable
from fusefs.operations import VolumeOperations
from fusefs.snapshot import Snapshot
from fusefs.usage import Usage

log = logging.getLogger(__name__)

EXIT_ABORTED: Final = 0  # the connection ended: nothing is left to serve
EXIT_FAILED: Final = 1
EXIT_MISMATCH: Final = 3


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
    worker = Worker(assignment, NodeTable(usage))
    try:
        trio.run(worker.serve)
    except session.InitMismatch:
        log.exception("this worker would negotiate other FUSE options than the first one did")
        return EXIT_MISMATCH
    return EXIT_ABORTED


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

    def __init__(self, assignment: Assignment, table: NodeTable) -> None:
        """Fill `table` with what the assignment holds."""
        self._assignment = assignment
        self._table = table
        self._control = assignment.control
        self._control.settimeout(0)
        self._adopted: protocol.Swapped | protocol.Rejected | None = None
        settled = [pair for pair in assignment.snapshots if pair[0] != assignment.pending]
        for _, fd in settled:
            table.keep(Snapshot.map(fd))
        newest = max(table.generations)
        table.begin(newest, plan.Plan(generation=newest, previous=0))
        table.priming = not assignment.primed
        for generation, fd in assignment.snapshots:
            if generation == assignment.pending and assignment.plan is not None:
                self._adopted = self._adopt(generation, assignment.plan, fd)

    def _adopt(
        self, generation: int, encoded: bytes, fd: int
    ) -> protocol.Swapped | protocol.Rejected:
        """Make a generation the current one, or leave everything as it is; return what to say.

        Snapshot and plan come from a node server that may be of another version; a worker that
        raised here would take every successor with it.
        """
        with contextlib.ExitStack() as undo:
            try:
                snapshot = Snapshot.map(fd)
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

    async def serve(self) -> None:
        """Serve until the connection or the keeper ends."""
        assignment = self._assignment
        operations = VolumeOperations(self._table)
        number, reply = await session.handshake(operations, assignment.init_request)
        session.attach(number, assignment.device, reply, assignment.first_reply)
        os.close(assignment.device)
        if assignment.first_reply is not None:
            # The predecessor may have swapped and died before it told the kernel.
            self._invalidate(self._table.live_nodes())
        self.say_ready(reply)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey)
            await session.serve()
            nursery.cancel_scope.cancel()

    def say_ready(self, reply: bytes) -> None:
        """Tell the keeper, also what became of the generation this worker was forked with."""
        protocol.send(self._control, protocol.Ready(reply))
        if self._adopted is not None:
            protocol.send(self._control, self._adopted)

    async def _obey(self) -> None:
        """Follow the keeper; when it is gone the death signal has the last word."""
        while True:
            await trio.lowlevel.wait_readable(self._control)
            received = protocol.receive(self._control, protocol.AT_WORKER)
            if received is None:
                pyfuse3.terminate()
                return
            self.carry_out(*received)

    def carry_out(self, message: protocol.ToWorker, descriptors: list[int]) -> None:
        """Do as the keeper says, and tell it."""
        match message:
            case protocol.Swap(generation=generation, plan=encoded):
                self._swap(generation, encoded, descriptors[0])
            case protocol.Finish():
                self._table.finish()
            case protocol.Primed():
                self._table.priming = False
                protocol.send(self._control, protocol.PrimingEnded())
            case protocol.Drop(generations=generations, forced=forced):
                gone = self._table.drop(list(generations), forced=forced, is_known=_is_known)
                protocol.send(self._control, protocol.Dropped(tuple(gone)))

    def _swap(self, generation: int, encoded: bytes, fd: int) -> None:
        """Make the generation current, then make the kernel ask again for what changed."""
        outcome = self._adopt(generation, encoded, fd)
        if isinstance(outcome, protocol.Swapped):
            snapshot = self._table.generations[generation].snapshot
            changed = [snapshot.files[path].node for path in plan.decode(encoded).changed]
            changed.extend(entry.node for entry in snapshot.directories.values())
            self._invalidate(changed)
        protocol.send(self._control, outcome)

    @staticmethod
    def _invalidate(nodes: list[int]) -> None:
        for node in nodes:
            _is_known(node)


def _is_known(node: int) -> bool:
    """Invalidate a node's attributes; return whether the kernel knows the node.

    Attributes only: any other notification from the serving thread can deadlock.
    """
    try:
        pyfuse3.invalidate_inode(node, attr_only=True)
    except FileNotFoundError:
        return False
    return True


def warm_up() -> None:
    """Import and run, before forking, what an error path would need after the chroot."""
    try:
        initmsg.offered_flags(b"")
    except ValueError:
        traceback.format_exc()
    "warm".encode("idna").decode("idna")
    trio.run(trio.lowlevel.checkpoint)

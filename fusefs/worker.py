"""A worker: the process that serves one volume, and nothing else.

It is forked from the warmed keeper and gives everything up before it answers anybody. What it needs
afterwards must be imported before: there is no file system to import from.
"""

import logging
import os
import socket
import traceback
from typing import Final

import attrs
import pyfuse3
import trio

from fusefs import children, initmsg, plan, protocol, sandbox, session, syscalls
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
        snapshots: Every generation kept, oldest first.
        plan: The plan in progress, which leads to the newest of them; None when there is none.
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
    snapshots: tuple[int, ...]
    plan: bytes | None
    primed: bool
    uid: int
    keeper: int

    def descriptors(self) -> list[int]:
        """Return every descriptor that the worker keeps."""
        return [self.device, self.control.fileno(), self.usage, self.root, *self.snapshots]


def run(assignment: Assignment) -> int:
    """Serve until the connection or the keeper ends; return the exit code. Call after fork only."""
    usage = enter(assignment)
    worker = _Worker(assignment, NodeTable(usage))
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
    sandbox.limit_worker()
    sandbox.confine(assignment.root)
    sandbox.isolate()
    sandbox.drop_privileges(sandbox.Identity(uid=assignment.uid), parent=assignment.keeper)
    return usage


class _Worker:
    def __init__(self, assignment: Assignment, table: NodeTable) -> None:
        self._assignment = assignment
        self._table = table
        self._control = assignment.control
        self._control.settimeout(0)
        for fd in assignment.snapshots:
            table.keep(Snapshot.map(fd))
        newest = max(table.generations)
        table.begin(newest, self._plan_of(assignment.plan, newest))
        table.priming = not assignment.primed

    @staticmethod
    def _plan_of(encoded: bytes | None, generation: int) -> plan.Plan:
        if encoded is None:
            return plan.Plan(generation=generation, previous=0)
        return plan.decode(encoded)

    async def serve(self) -> None:
        assignment = self._assignment
        operations = VolumeOperations(self._table)
        number, reply = await session.handshake(operations, assignment.init_request)
        session.attach(number, assignment.device, reply, assignment.first_reply)
        os.close(assignment.device)
        if assignment.first_reply is not None:
            # The predecessor may have swapped and died before it told the kernel.
            self._invalidate(self._table.live_nodes())
        protocol.send(self._control, protocol.Ready(reply))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey)
            await session.serve()
            nursery.cancel_scope.cancel()

    async def _obey(self) -> None:
        """Follow the keeper; when it is gone the death signal has the last word."""
        while True:
            await trio.lowlevel.wait_readable(self._control)
            received = protocol.receive(self._control, protocol.AT_WORKER)
            if received is None:
                pyfuse3.terminate()
                return
            self._carry_out(*received)

    def _carry_out(self, message: protocol.ToWorker, descriptors: list[int]) -> None:
        match message:
            case protocol.Swap(generation=generation, plan=encoded):
                self._swap(generation, plan.decode(encoded), descriptors[0])
            case protocol.Finish():
                self._table.finish()
            case protocol.Primed():
                self._table.priming = False
                protocol.send(self._control, protocol.PrimingEnded())
            case protocol.Drop(generations=generations, forced=forced):
                gone = self._table.drop(list(generations), forced=forced)
                protocol.send(self._control, protocol.Dropped(tuple(gone)))

    def _swap(self, generation: int, new_plan: plan.Plan, fd: int) -> None:
        """Make the generation current, then make the kernel ask again for what changed."""
        snapshot = Snapshot.map(fd)
        if snapshot.generation != generation or new_plan.generation != generation:
            message = f"generation {generation} was announced, {snapshot.generation} came"
            raise ValueError(message)
        if generation in self._table.generations:
            snapshot.close()  # this worker was forked with it
        else:
            self._table.keep(snapshot)
        snapshot = self._table.generations[generation].snapshot
        self._table.begin(generation, new_plan)
        changed = [snapshot.files[path].node for path in new_plan.changed]
        changed.extend(entry.node for entry in snapshot.directories.values())
        self._invalidate(changed)
        protocol.send(self._control, protocol.Swapped(generation))

    @staticmethod
    def _invalidate(nodes: list[int]) -> None:
        """Invalidate attributes only: any other notification from the serving thread deadlocks."""
        for node in nodes:
            try:
                pyfuse3.invalidate_inode(node, attr_only=True)
            except FileNotFoundError:
                continue  # the kernel does not know the node


def warm_up() -> None:
    """Import and run, before forking, what an error path would need after the chroot."""
    try:
        initmsg.offered_flags(b"")
    except ValueError:
        traceback.format_exc()
    "warm".encode("idna").decode("idna")
    trio.run(trio.lowlevel.checkpoint)

"""A whole volume without a kernel: the keeper's machine, real workers, and a touch child.

Where `fakes.host` invents workers, these are real: they adopt snapshots and plans, keep a node
table and answer handlers. Left out are the sandbox and the kernel, which here asks for the steps of
a plan one by one. Nothing moves by itself: `choices` lists what may happen next.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

import attrs
import pyfuse3

from fakes.fuse import answer
from fakes.trees import Files, kinds, specs
from fakes.volumes import CONTEXT
from fusefs import effects, packets, plan, protocol
from fusefs.errors import NodeError
from fusefs.kept import GRACE_S, KeptGenerations
from fusefs.nodeids import ROOT_NODE
from fusefs.nodes import NodeTable
from fusefs.operations import VolumeOperations
from fusefs.snapshot import Snapshot, seal
from fusefs.usage import Usage
from fusefs.volume import Volume
from fusefs.worker import Assignment, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fusefs.plan import Step

PUBLISH: Final = effects.Ticket(1, 1)


class RealWorker:
    """A worker of the moment: real but for kernel and sandbox."""

    def __init__(self, world: KeeperWorld) -> None:
        """Fork it with what holds now."""
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.settimeout(0)
        self.theirs = theirs
        self.usage = Usage(world.page)
        self.table = NodeTable(self.usage)
        self.operations = VolumeOperations(self.table)
        self.ready = False
        self.inbox: list[tuple[protocol.ToWorker, list[int]]] = []
        volume = world.volume
        snapshots = world.kept.descriptors(up_to=volume.served)
        assignment = Assignment(
            device=-1,
            control=theirs,
            usage=-1,
            root=-1,
            init_request=b"",
            first_reply=None,
            snapshots=tuple((number, os.dup(fd)) for number, fd in snapshots),
            pending=volume.served if volume.rotation else None,
            plan=volume.plan_in_progress,
            primed=volume.primed,
            uid=1,
            keeper=1,
            digests=world.kept.digests(),
        )
        # The kernel of this world forgets nothing that it has to be told of.
        self.worker = Worker(assignment, self.table, lambda _: True)

    def said(self) -> Iterator[protocol.FromWorker]:
        """Yield what it has said since last asked."""
        while True:
            try:
                received = packets.receive(self.ours, protocol.FROM_WORKER)
            except BlockingIOError:
                return
            assert received is not None
            yield received[0]

    def node(self, path: str) -> int | None:
        """Walk to a path; None where there is none."""
        node = ROOT_NODE
        try:
            for name in path.split("/"):
                node = self.table.resolve(node, name.encode())
        except NodeError:
            return None
        return node

    def read(self, path: str) -> tuple[int, bytes]:
        """Open and read a live file: its generation and content."""
        node = self.node(path)
        assert node is not None, path
        generation, entry = self.table.file(node)
        return generation, self.table.read(generation, entry.node, 0, 99)

    def close(self) -> None:
        """End it, as a kill does."""
        for _, descriptors in self.inbox:
            for descriptor in descriptors:
                os.close(descriptor)
        for kept in self.table.generations.values():
            kept.snapshot.close()
        self.usage.close()
        self.ours.close()
        self.theirs.close()


@attrs.define
class TouchChild:
    """A touch child: what it still has to ask for, and whether it has been acknowledged."""

    plan: plan.Plan
    only: tuple[str, ...] | None
    done: int = 0

    def go_on(self, worker: RealWorker) -> str:
        """Ask for the next thing; return "more", "acknowledged" or "ended".

        Raises:
            pyfuse3.FUSEError: It was refused, and the child fails.
        """
        left = len(self.plan.steps) - self.done
        if self.only is None and left > -2:
            if left > 0:
                _ask(worker, self.plan.steps[self.done])
            elif left == 0:
                _link(worker, self.plan.generation)
            else:
                _swing(worker)
            self.done += 1
            return "acknowledged" if left == -1 else "more"
        for path in self.plan.changed if self.only is None else self.only:
            node = worker.node(path)
            if node is not None:
                info = answer(worker.operations.open(node, os.O_WRONLY, CONTEXT))
                answer(worker.operations.write(info.fh, 0, b"\n"))
                answer(worker.operations.release(info.fh))
        return "ended"


def _ask(worker: RealWorker, step: Step) -> None:
    """Ask for a step as the kernel does: not where the name is there already, or gone."""
    operations = worker.operations
    parent, _, text = step.path.rpartition("/")
    where, name = worker.node(parent) if parent else ROOT_NODE, text.encode()
    node = worker.node(step.path)
    there = worker.table.attributes(node).kind if node is not None else None
    if where is None:
        assert step.kind in ("unlink", "rmdir"), f"{step}: no directory to hold it"
        return
    match step.kind, there:
        case "mkdir", None:
            answer(operations.mkdir(where, name, 0o755, CONTEXT))
        case "create", None:
            info, _ = answer(operations.create(where, name, 0o444, os.O_WRONLY, CONTEXT))
            answer(operations.release(info.fh))
        case "unlink", "file":
            answer(operations.unlink(where, name, CONTEXT))
        case "rmdir", "directory":
            answer(operations.rmdir(where, name, CONTEXT))


def _link(worker: RealWorker, generation: int) -> None:
    if worker.node("..data_tmp") is None:
        target = b"..%d" % generation
        try:
            answer(worker.operations.symlink(ROOT_NODE, b"..data_tmp", target, CONTEXT))
        except pyfuse3.FUSEError as error:
            if error.errno != errno.EEXIST:  # a child before got further
                raise


def _swing(worker: RealWorker) -> None:
    if worker.node("..data_tmp") is not None:
        names = (ROOT_NODE, b"..data_tmp", ROOT_NODE, b"..data")
        answer(worker.operations.rename(*names, 0, CONTEXT))


class KeeperWorld:
    """A volume that is served, from the keeper's side.

    Attributes:
        contents: Every content that was handed in, by generation.
        answers: The error, or None, of each request that was answered.
    """

    def __init__(self, files: Files) -> None:
        """Publish a volume, all calm."""
        self.now = 0.0
        self.page = Usage.create()
        self.kept = KeptGenerations(clock=lambda: self.now)
        self.contents: dict[int, Files] = {}
        self.newest: Snapshot | None = None
        self.answers: dict[effects.Ticket, Exception | None] = {}
        self.volume = Volume(1, PUBLISH)
        self.worker: RealWorker | None = None
        self.touch: TouchChild | None = None
        self.timers: list[effects.Effect] = []
        self._seal(files)
        self.carry_out(self.volume.begin())
        while PUBLISH not in self.answers:
            self.choices()[0]()

    def _seal(self, files: Files) -> bytes:
        """Seal the next generation and keep it; return its plan."""
        sealed = seal(specs(files), previous=self.newest, now_ns=1)
        if self.newest:
            self.newest.close()
        self.newest = sealed.snapshot
        self.contents[self.newest.generation] = files
        self.kept.add(self.newest.generation, os.dup(self.newest.fd), self.newest.digest)
        return sealed.plan

    def rotate(self, files: Files) -> effects.Ticket:
        """Hand in the next generation."""
        previous = self.volume.newest
        encoded = self._seal(files)
        ticket = effects.Ticket(1, previous + 1)
        self.carry_out(
            self.volume.rotate(effects.Rotation(previous + 1, previous, encoded, ticket))
        )
        return ticket

    def carry_out(self, wanted: list[effects.Effect]) -> None:
        """Carry out what an event asked for."""
        for effect in wanted:
            self._carry_out_one(effect)

    def _carry_out_one(self, effect: effects.Effect) -> None:  # noqa: C901 - one case an effect
        match effect:
            case effects.ClearTarget():
                self.carry_out(self.volume.target_cleared())
            case effects.StartWorker(delay_s=0):
                assert self.worker is None
                self.worker = RealWorker(self)
            case effects.StartWorker() | effects.RetryLater():
                self.timers.append(effect)
            case effects.StartPriming():
                self.carry_out(self.volume.primed_by_child(succeeded=True))
            case effects.EndPriming():
                self._tell(protocol.Primed())
            case effects.Attach():
                self.carry_out(self.volume.attached())
            case effects.SendSwap(rotation=rotation):
                descriptor = self.kept.descriptor(rotation.generation)
                digest = self.kept.digest(rotation.generation)
                self._tell(protocol.Swap(rotation.generation, rotation.plan, digest), descriptor)
            case effects.StartTouch(rotation=rotation, only=only):
                assert self.touch is None
                self.touch = TouchChild(plan.decode(rotation.plan), only)
            case effects.EndTouch(finished=True):
                self._tell(protocol.Finish())
            case effects.EndTouch():
                pass
            case effects.Answer(ticket=ticket, error=error):
                assert ticket not in self.answers
                self.answers[ticket] = error
            case _:
                message = f"{effect} in a world where nothing is refused"
                raise AssertionError(message)

    def _tell(self, message: protocol.ToWorker, descriptor: int | None = None) -> None:
        if self.worker is not None:
            descriptors = [] if descriptor is None else [os.dup(descriptor)]
            self.worker.inbox.append((message, descriptors))

    # What may happen

    def choices(self) -> list[Callable[[], None]]:
        """Return what can happen next; nothing when all is quiet."""
        found: list[Callable[[], None]] = []
        if self.worker and not self.worker.ready:
            found.append(self.make_ready)
        if self.worker and self.worker.ready and self.worker.inbox:
            found.append(self.let_worker_read)
        if self.touch and self.worker and self.worker.ready:
            found.append(self.let_touch)
        if self.timers:
            found.append(self.fire)
        return found

    def make_ready(self) -> None:
        """Let the worker answer the kernel."""
        assert self.worker is not None
        self.worker.ready = True
        self.worker.worker.say_ready(b"")
        self._hear()

    def let_worker_read(self) -> None:
        """Let the worker follow the first message that it has not read."""
        assert self.worker is not None
        self.worker.worker.carry_out(*self.worker.inbox.pop(0))
        self._hear()

    def _hear(self) -> None:
        assert self.worker is not None
        for message in self.worker.said():
            match message:
                case protocol.Ready():
                    self.carry_out(self.volume.worker_ready())
                case protocol.PrimingEnded():
                    self.carry_out(self.volume.priming_ended())
                case protocol.Swapped(generation=generation):
                    self.carry_out(self.volume.swapped(generation))
                case protocol.Dropped(generations=generations):
                    self.kept.drop(generations, spare=self.volume.spared())
                case protocol.Rejected():
                    raise AssertionError(message.text)

    def let_touch(self) -> None:
        """Let the touch child ask for one thing more."""
        assert self.touch is not None
        assert self.worker is not None
        try:
            outcome = self.touch.go_on(self.worker)
        except pyfuse3.FUSEError:
            self.end_touch(None)
            return
        if outcome == "acknowledged":
            self.carry_out(self.volume.touch_acknowledged())
        elif outcome == "ended":
            self.end_touch(())

    def end_touch(self, busy: tuple[str, ...] | None) -> None:
        """End the touch child; None when it failed."""
        self.touch = None
        self.kept.supersede(self.volume.acknowledged)
        self.carry_out(self.volume.touch_ended(busy=busy))

    def fire(self) -> None:
        """Let the first timer come due."""
        effect = self.timers.pop(0)
        retried = isinstance(effect, effects.RetryLater)
        self.carry_out(self.volume.retry() if retried else [effects.StartWorker()])

    def kill_worker(self) -> None:
        """Kill the worker, whatever it is doing."""
        assert self.worker is not None
        self.worker.close()
        self.worker = None
        self.carry_out(self.volume.worker_died(lived_s=10.0))

    def sweep(self) -> None:
        """Offer the worker what may go, after the grace."""
        self.now += GRACE_S
        idle, _ = self.kept.removable(spare=self.volume.spared())
        self._tell(protocol.Drop(tuple(idle), forced=False))

    def come_to_rest(self) -> None:
        """Let everything happen that is under way."""
        for _ in range(1000):
            choices = self.choices()
            if not choices:
                return
            choices[0]()
        message = "the world does not come to rest"
        raise AssertionError(message)

    def visible(self) -> set[str]:
        """Return which of all paths there ever were a walk finds."""
        assert self.worker is not None
        paths = {path for files in self.contents.values() for path in kinds(files)}
        return {path for path in paths if self.worker.node(path) is not None}

    def close(self) -> None:
        """Let go of everything."""
        if self.worker:
            self.worker.close()
        self.kept.close()
        os.close(self.page)
        if self.newest:
            self.newest.close()

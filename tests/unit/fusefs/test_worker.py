"""How a worker follows the keeper, and what it refuses to serve: without kernel and sandbox."""

from __future__ import annotations

import hashlib
import mmap
import os
import socket
from typing import TYPE_CHECKING

import attrs
import pyfuse3
import pytest
import trio
from typing_extensions import override

from fakes.trees import specs
from fusefs import packets, protocol
from fusefs.errors import InvalidSnapshot, NoSuchName
from fusefs.gate import Gate
from fusefs.memory import is_secret, sealed_memfd
from fusefs.nodeids import PRIME_NAME, ROOT_NODE
from fusefs.nodes import NodeTable
from fusefs.pace import Pace
from fusefs.plan import Plan, Step, decode
from fusefs.session import Started
from fusefs.snapshot import Sealed, seal
from fusefs.usage import Usage
from fusefs.worker import EXIT_ABORTED, EXIT_STOPPED, Assignment, Worker, stand_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILES = [{"a": b"one", "d/b": b"x"}, {"a": b"two", "d/b": b"x"}, {"a": b"two", "c": b""}]


class FakeKeeper:
    """A volume's generations as a keeper holds them, and the workers that it forks."""

    def __init__(self) -> None:
        self.page = Usage.create()
        self.sealed: list[Sealed] = []
        for files in FILES:
            previous = self.sealed[-1].snapshot if self.sealed else None
            self.sealed.append(seal(specs(files), previous=previous, now_ns=1))
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.settimeout(0)
        self.usage = Usage(self.page)
        self.table = NodeTable(self.usage)
        self.known: set[int] = set()
        self.invalidated: list[int] = []

    def fork(
        self, *generations: int, pending: int | None = None, plan: bytes | None = None
    ) -> Worker:
        """Return a worker that holds these generations, the last one with a plan in progress."""
        assignment = Assignment(
            device=-1,
            control=self.theirs,
            usage=-1,
            root=-1,
            init_request=b"",
            first_reply=None,
            snapshots=tuple((number, self.descriptor(number)) for number in generations),
            pending=pending,
            plan=self.plan(pending) if pending and plan is None else plan,
            primed=False,
            uid=1,
            keeper=1,
            digests={number: self.digest(number) for number in generations},
        )
        return Worker(assignment, self.table, self.invalidate)

    def descriptor(self, generation: int) -> int:
        """Return a descriptor of a generation for a worker to own."""
        return os.dup(self.sealed[generation - 1].snapshot.fd)

    def digest(self, generation: int) -> bytes:
        """Return what a generation must hold."""
        return self.sealed[generation - 1].snapshot.digest

    def write_to(self, generation: int) -> None:
        """Do what any holder of the descriptor can do to secret memory."""
        fd = self.sealed[generation - 1].snapshot.fd
        with mmap.mmap(fd, os.fstat(fd).st_size) as content:
            content[-1:] = b"!"

    def plan(self, generation: int) -> bytes:
        """Return the plan that leads to a generation."""
        return self.sealed[generation - 1].plan

    def swap(self, worker: Worker, generation: int) -> None:
        """Send a generation as the keeper does."""
        message = protocol.Swap(generation, self.plan(generation), self.digest(generation))
        worker.carry_out(message, [self.descriptor(generation)])

    def heard(self) -> list[protocol.FromWorker]:
        """Return what the worker has said since last asked."""
        found: list[protocol.FromWorker] = []
        while True:
            try:
                received = packets.receive(self.ours, protocol.FROM_WORKER)
            except BlockingIOError:
                return found
            assert received is not None
            found.append(received[0])

    def invalidate(self, node: int) -> bool:
        """Stand for the gate's notification."""
        self.invalidated.append(node)
        return node in self.known

    def close(self) -> None:
        """Let go of everything."""
        for kept in self.table.generations.values():
            kept.snapshot.close()
        for sealed in self.sealed:
            sealed.snapshot.close()
        self.usage.close()
        os.close(self.page)
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def keeper() -> Iterator[FakeKeeper]:
    """Return a keeper with three generations and no worker."""
    made = FakeKeeper()
    yield made
    made.close()


def rejection(keeper: FakeKeeper, generation: int = 2) -> str:
    """Check that the worker said one thing, that it cannot serve a generation; return why not."""
    [said] = keeper.heard()
    assert isinstance(said, protocol.Rejected)
    assert said.generation == generation
    return said.text


# What a worker is forked with


def test_newest_generation_is_served_at_first(keeper: FakeKeeper) -> None:
    """Without a plan in progress the newest of the generations is the current one."""
    worker = keeper.fork(1, 2)
    assert (keeper.table.current, keeper.table.transition) == (2, None)
    assert set(keeper.table.generations) == {1, 2}
    worker.say_ready(b"reply")
    assert keeper.heard() == [protocol.Ready(b"reply")]


def test_priming_file_is_there_until_told(keeper: FakeKeeper) -> None:
    """The keeper hears when it can be found no longer."""
    worker = keeper.fork(1)
    assert keeper.table.resolve(ROOT_NODE, PRIME_NAME)
    for _ in range(2):
        worker.carry_out(protocol.Primed(), [])
        assert keeper.heard() == [protocol.PrimingEnded()]
        with pytest.raises(NoSuchName):
            keeper.table.resolve(ROOT_NODE, PRIME_NAME)


def test_plan_in_progress_is_taken_over(keeper: FakeKeeper) -> None:
    """A successor goes on where its predecessor stopped, and says that it has swapped."""
    keeper.usage.set_progress(2, 1)
    worker = keeper.fork(1, 2, pending=2)
    assert keeper.table.current == 2
    assert keeper.table.transition is not None
    assert keeper.table.transition.plan == decode(keeper.plan(2))
    assert keeper.table.transition.done == 1
    worker.say_ready(b"")
    assert keeper.heard() == [protocol.Ready(b""), protocol.Swapped(2)]


def test_broken_plan_leaves_the_old_generation(keeper: FakeKeeper) -> None:
    """A successor that could not follow the plan serves what was before it, and says why."""
    worker = keeper.fork(1, 2, pending=2, plan=b"\xc1")
    assert (keeper.table.current, keeper.table.transition) == (1, None)
    assert set(keeper.table.generations) == {1}
    worker.say_ready(b"")
    ready, rejected = keeper.heard()
    assert ready == protocol.Ready(b"")
    assert isinstance(rejected, protocol.Rejected)


# Swaps


def test_swap_makes_the_generation_current(keeper: FakeKeeper) -> None:
    """Its plan is in progress, and the kernel asks again for what changed."""
    worker = keeper.fork(1)
    keeper.swap(worker, 2)
    assert keeper.heard() == [protocol.Swapped(2)]
    assert keeper.table.current == 2
    assert keeper.table.transition is not None
    snapshot = keeper.sealed[1].snapshot
    directories = {entry.node for entry in snapshot.directories.values()}
    assert set(keeper.invalidated) == {snapshot.files["a"].node, *directories}


def test_finish_ends_the_plan(keeper: FakeKeeper) -> None:
    """The next generation can come then."""
    worker = keeper.fork(1)
    keeper.swap(worker, 2)
    worker.carry_out(protocol.Finish(), [])
    assert keeper.table.transition is None
    keeper.swap(worker, 3)
    assert keeper.table.current == 3


def other_plan(**change: object) -> Callable[[FakeKeeper], tuple[bytes, int]]:
    """Return generation 2 with a plan that was changed."""

    def made(keeper: FakeKeeper) -> tuple[bytes, int]:
        plan = decode(keeper.plan(2))
        fields = {"generation": plan.generation, "previous": plan.previous} | change
        return Plan(**fields).encode(), keeper.descriptor(2)  # type: ignore[arg-type]  # a table

    return made


UNSERVABLE: dict[str, Callable[[FakeKeeper], tuple[bytes, int]]] = {
    "no-plan": lambda keeper: (b"\xc1", keeper.descriptor(2)),
    "no-snapshot": lambda keeper: (keeper.plan(2), sealed_memfd("test", [b"x" * 99])),
    "empty-file": lambda keeper: (keeper.plan(2), sealed_memfd("test", [])),
    "unsealed": lambda keeper: (keeper.plan(2), os.memfd_create("test", os.MFD_CLOEXEC)),
    "no-memory-file": lambda keeper: (keeper.plan(2), os.open("/dev/null", os.O_RDONLY)),
    "other-snapshot": lambda keeper: (keeper.plan(2), keeper.descriptor(3)),
    "plan-of-another": lambda keeper: (keeper.plan(3), keeper.descriptor(2)),
    "plan-from-nowhere": other_plan(previous=7),
    "plan-from-itself": other_plan(previous=2),
    "changes-the-unknown": other_plan(changed=("nothing",)),
}


def digest_of(fd: int) -> bytes:
    """Return what goes with a descriptor, whatever is in it."""
    if not is_secret(fd):
        return b""
    with mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ) as content:
        return hashlib.sha256(content).digest()


@pytest.mark.parametrize("make", UNSERVABLE.values(), ids=UNSERVABLE)
def test_what_cannot_be_served_is_rejected(
    keeper: FakeKeeper, make: Callable[[FakeKeeper], tuple[bytes, int]]
) -> None:
    """The worker serves on what it had, holds nothing of it (conftest), and takes a good one."""
    worker = keeper.fork(1)
    plan, descriptor = make(keeper)
    worker.carry_out(protocol.Swap(2, plan, digest_of(descriptor)), [descriptor])
    assert rejection(keeper)
    assert (keeper.table.current, set(keeper.table.generations)) == (1, {1})
    assert keeper.invalidated == []
    keeper.swap(worker, 2)
    assert keeper.heard() == [protocol.Swapped(2)]


def test_content_that_was_written_to_is_rejected(keeper: FakeKeeper) -> None:
    """Whoever holds secret memory can write to it; what is shown is what was sealed."""
    worker = keeper.fork(1)
    worker.carry_out(protocol.Swap(2, keeper.plan(2), bytes(32)), [keeper.descriptor(2)])
    assert "somebody wrote to it" in rejection(keeper)
    assert keeper.table.current == 1


def test_written_content_is_not_shown_by_a_successor(
    keeper: FakeKeeper, announced: list[str]
) -> None:
    """An older generation is let go; without the one to be shown there is nothing to serve."""
    keeper.write_to(1)
    announced.append("generation 1 is not kept: .*somebody wrote to it")
    keeper.fork(1, 2)
    assert set(keeper.table.generations) == {2}
    keeper.write_to(2)
    with pytest.raises(InvalidSnapshot, match="somebody wrote to it"):
        keeper.fork(2)


def test_generation_is_not_taken_twice(keeper: FakeKeeper) -> None:
    """Another content under a number that is served already would be mistaken for it."""
    worker = keeper.fork(1)
    keeper.swap(worker, 2)
    keeper.heard()
    keeper.swap(worker, 2)
    assert "served already" in rejection(keeper)


def test_plan_may_name_odd_steps(keeper: FakeKeeper) -> None:
    """Steps that nobody can carry out make a touch child fail, not the worker."""
    worker = keeper.fork(1)
    steps = (Step("create", "x/y"), Step("rmdir", "nothing"))
    worker.carry_out(
        protocol.Swap(2, Plan(generation=2, previous=1, steps=steps).encode(), keeper.digest(2)),
        [keeper.descriptor(2)],
    )
    assert keeper.heard() == [protocol.Swapped(2)]
    with pytest.raises(NoSuchName):
        keeper.table.resolve(ROOT_NODE, b"nothing")


# Retention


def test_generations_are_dropped_as_asked(keeper: FakeKeeper) -> None:
    """Those that nobody uses go, and the keeper hears which."""
    worker = keeper.fork(1, 2, 3)
    keeper.table.opened(2)
    worker.carry_out(protocol.Drop((1, 2, 3, 9), forced=False), [])
    assert keeper.heard() == [protocol.Dropped((1,))]
    worker.carry_out(protocol.Drop((2, 3), forced=True), [])
    assert keeper.heard() == [protocol.Dropped((2,))]
    assert set(keeper.table.generations) == {3}


def test_bound_file_holds_its_generation(keeper: FakeKeeper) -> None:
    """Whether the kernel knows a removed file is asked by an invalidation that harms nobody."""
    worker = keeper.fork(1, 2, 3)
    keeper.known.add(keeper.sealed[1].snapshot.files["d/b"].node)
    worker.carry_out(protocol.Drop((1, 2), forced=False), [])
    assert keeper.heard() == [protocol.Dropped((1,))]


# Standby, signs of life, and the end


async def stood_by(keeper: FakeKeeper, *messages: protocol.Message) -> protocol.Attach | None:
    """Let a worker stand by and tell it something."""
    keeper.theirs.settimeout(0)
    for message in messages:
        packets.send(keeper.ours, message)
    with trio.fail_after(5):
        return await stand_by(keeper.theirs, b"reply")


@pytest.mark.parametrize("recover", [False, True])
async def test_standby_waits_for_the_word(keeper: FakeKeeper, *, recover: bool) -> None:
    """It says that it could serve, answers the watchdog, and knows then what to recover."""
    told = await stood_by(keeper, protocol.Ping(), protocol.Attach(recover))
    assert told == protocol.Attach(recover)
    assert keeper.heard() == [protocol.Standby(b"reply"), protocol.Pong()]


async def test_standby_may_never_be_needed(keeper: FakeKeeper) -> None:
    """A handover that is called off ends it."""
    assert await stood_by(keeper, protocol.Stop()) is None


async def test_standby_ends_with_its_keeper(keeper: FakeKeeper) -> None:
    """Nobody is left to tell it."""
    keeper.ours.shutdown(socket.SHUT_RDWR)
    keeper.theirs.settimeout(0)
    with pytest.raises(BrokenPipeError):
        await stand_by(keeper.theirs, b"reply")


def test_worker_gives_a_sign_of_life(keeper: FakeKeeper) -> None:
    """The watchdog hears from it between any two requests."""
    keeper.fork(1).carry_out(protocol.Ping(), [])
    assert keeper.heard() == [protocol.Pong()]


class NotedGate(Gate):
    """A gate that notes what is asked of it, and lets nothing through."""

    def __init__(self, device: int) -> None:
        super().__init__(device, Pace(1))
        self.asked: list[str] = []
        self.told = trio.Event()

    @override
    def open(self) -> None:
        self.asked.append("open")

    @override
    def close(self) -> None:
        self.asked.append("close")
        self.told.set()

    @override
    def recover(self) -> None:
        if self.asked:
            self.told.set()
        self.asked.append("recover")


@pytest.mark.parametrize(
    ("message", "asked", "code"),
    [
        (protocol.Stop(), "close", EXIT_STOPPED),
        (protocol.Recover(), "recover", EXIT_ABORTED),
    ],
    ids=["stop", "recover"],
)
async def test_worker_serves_until_it_is_stopped(
    keeper: FakeKeeper,
    monkeypatch: pytest.MonkeyPatch,
    message: protocol.Message,
    asked: str,
    code: int,
) -> None:
    """It takes over, does as it is told, and says in the end whether it was asked to end."""
    device = os.open(os.devnull, os.O_WRONLY)  # takes the answer to INIT
    gate = NotedGate(device)

    async def main(_: int, __: int) -> None:
        packets.send(keeper.ours, message)
        await gate.told.wait()

    monkeypatch.setattr(pyfuse3, "main", main)
    keeper.theirs.settimeout(0)
    serving = keeper.fork(1)
    started = Started(-1, b"reply", keeper.theirs)
    with trio.fail_after(5):
        assert await serving.serve(gate, started, recover=True) == code
    os.close(device)
    assert gate.asked == ["recover", "open", asked]
    assert keeper.invalidated == keeper.table.live_nodes()
    assert keeper.heard() == [protocol.Ready(b"reply")]


def test_assignment_names_what_the_worker_keeps(keeper: FakeKeeper) -> None:
    """The sandbox closes every other descriptor."""
    assignment = Assignment(
        device=5,
        control=keeper.theirs,
        usage=6,
        root=7,
        init_request=b"",
        first_reply=None,
        snapshots=((1, 8), (2, 9)),
        pending=None,
        plan=None,
        primed=True,
        uid=1,
        keeper=1,
    )
    assert assignment.descriptors() == [5, keeper.theirs.fileno(), 6, 7, 8, 9]
    changed = attrs.evolve(assignment, snapshots=())
    assert changed.descriptors() == [5, keeper.theirs.fileno(), 6, 7]

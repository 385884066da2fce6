"""Who serves a volume: workers that die, hang, cannot be killed, or make room for others."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from fakes.virtualloop import VirtualLoop
from fusefs import protocol, sandbox, succession
from fusefs.succession import READY_DEADLINE_S, REAP_S, STOP_S, Listener, Succession
from fusefs.watchdog import PATIENCE_S, PING_S
from fusefs.worker import EXIT_MISMATCH, EXIT_STOPPED, Assignment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fusefs.loop import Loop

KILLED = -9


class Worker:
    """Stands for `fusefs.workerprocess.WorkerProcess`.

    Attributes:
        mortal: Whether a kill ends it; one that is blocked in the kernel lives on.
        alive: Whether it answers pings.
    """

    def __init__(
        self,
        _loop: Loop,
        prepare: Callable[[socket.socket], Assignment],
        spoke: Callable[[protocol.FromWorker], None],
        ended: Callable[[int, float], None],
    ) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.assignment = prepare(theirs)
        self.pid = 100 + self.assignment.number
        self.say = spoke
        self._ended = ended
        self._gone: Callable[[], None] | None = None
        self.told: list[protocol.Message] = []
        self.mortal = self.alive = True
        self.killed = self.over = False

    def tell(self, message: protocol.Message, _descriptors: Sequence[int] = ()) -> None:
        """Answer a ping; note anything else."""
        if not isinstance(message, protocol.Ping):
            self.told.append(message)
        elif self.alive:
            self.say(protocol.Pong())

    def kill(self) -> None:
        """End, if that is possible."""
        self.killed = True
        if self.mortal:
            self.end(KILLED)

    def end(self, code: int) -> None:
        """End with an exit code."""
        if self.over:
            return
        self.over = True
        if self._gone is not None:
            self._gone()
        else:
            self._ended(code, 1.0)

    def abandon(self, gone: Callable[[], None]) -> None:
        """Be heard no more."""
        self._gone = gone
        self.say = lambda _: None
        self.kill()


class World:
    """A succession, its workers, and what its owner hears."""

    def __init__(self, *, standby: bool = False) -> None:
        self.loop = VirtualLoop()
        self.workers: list[Worker] = []
        self.heard: list[str] = []
        self.restarting = True
        listener = Listener(
            ready=lambda _: self.heard.append("ready"),
            spoke=lambda said: self.heard.append(type(said).__name__),
            ended=self.end,
            standing_by=lambda: self.heard.append("standing by"),
            refused=lambda: self.heard.append("refused"),
        )
        self.succession = Succession(
            self.loop, self.assign, listener, volume_id="v", standby=standby
        )

    def assign(self, control: socket.socket, root: int) -> Assignment:
        """Return an assignment of which nothing is used."""
        return Assignment(
            device=-1,
            control=control,
            usage=-1,
            root=root,
            init_request=b"",
            first_reply=None,
            snapshots=(),
            pending=None,
            plan=None,
            primed=True,
            uid=1,
            keeper=1,
        )

    def end(self, _: float) -> None:
        """Hear that a worker has ended; do as the volume does."""
        self.heard.append("ended")
        if self.restarting:
            self.succession.start()

    @property
    def worker(self) -> Worker:
        """The newest worker."""
        return self.workers[-1]

    def serve(self) -> Worker:
        """Start a worker and let it come up."""
        self.succession.start()
        self.worker.say(protocol.Ready(b""))
        return self.worker


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Return a function that makes a succession without a worker."""
    worlds: list[World] = []

    class Listed(Worker):
        @override
        def __init__(
            self,
            loop: Loop,
            prepare: Callable[[socket.socket], Assignment],
            spoke: Callable[[protocol.FromWorker], None],
            ended: Callable[[int, float], None],
        ) -> None:
            super().__init__(loop, prepare, spoke, ended)
            worlds[-1].workers.append(self)

    def made(*, standby: bool = False) -> World:
        worlds.append(World(standby=standby))
        return worlds[-1]

    monkeypatch.setattr(succession, "WorkerProcess", Listed)
    monkeypatch.setattr(sandbox, "empty_root", lambda: os.open("/", os.O_PATH))
    return made


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    """Return a succession whose workers serve at once."""
    return make()


def test_serving_worker_is_left_alone(world: World) -> None:
    """Hours of answers, and nothing happens."""
    first = world.serve()
    world.loop.advance(7200)
    assert world.workers == [first]
    assert (first.killed, first.told) == (False, [])


def test_dead_worker_has_a_successor(world: World, announced: list[str]) -> None:
    """Its owner hears of it and asks for one, with the next number."""
    announced.append("the worker ended with -11")
    world.serve()
    world.worker.end(-11)
    assert world.heard == ["ready", "ended"]
    assert [one.assignment.number for one in world.workers] == [0, 1]
    assert world.succession.pid == 101


def test_silent_worker_is_replaced_in_time(world: World, announced: list[str]) -> None:
    """Stopped or spinning, it is killed, and another one serves within five seconds."""
    announced += ["the worker does not answer", "the worker ended with -9"]
    first = world.serve()
    world.loop.advance(100)
    first.alive = False
    world.loop.advance(PATIENCE_S - PING_S)
    assert not first.killed
    world.loop.advance(2 * PING_S)
    assert first.killed
    assert len(world.workers) == 2


def test_unkillable_worker_gets_company(world: World, announced: list[str]) -> None:
    """The successor does not wait for its end, and answers what it had taken once it is gone."""
    announced += ["the worker does not answer", "the worker is stuck in the kernel"]
    first = world.serve()
    first.alive = first.mortal = False
    world.loop.advance(PATIENCE_S + PING_S + REAP_S)
    second = world.worker
    assert second is not first
    second.say(protocol.Ready(b""))
    assert second.told == []
    first.end(KILLED)
    assert second.told == [protocol.Recover()]
    world.loop.advance(100)
    assert world.workers == [first, second]


def test_worker_must_become_ready(world: World, announced: list[str]) -> None:
    """One that hangs before it serves is replaced as well."""
    announced += ["the worker is not ready in time", "the worker ended with -9"]
    world.succession.start()
    world.loop.advance(READY_DEADLINE_S - 0.1)
    assert not world.worker.killed
    world.loop.advance(0.2)
    assert len(world.workers) == 2


def test_stopped_keeper_replaces_nobody(world: World) -> None:
    """A keeper that did not run for a while gives its workers time to answer."""
    first = world.serve()
    world.loop.advance(10)
    world.loop.stand_still(3600)
    world.loop.advance(100)
    assert not first.killed


def test_asked_for_replacement_is_a_death(world: World, announced: list[str]) -> None:
    """Whoever wants another worker gets it, also when the first one cannot be killed."""
    announced += ["the worker is stuck in the kernel"]
    first = world.serve()
    first.mortal = False
    world.succession.replace()
    world.loop.advance(REAP_S)
    assert world.worker is not first


def test_other_negotiation_is_said_loudly(world: World, announced: list[str]) -> None:
    """A worker whose library speaks otherwise is refused, and its owner goes on trying."""
    announced += ["this keeper cannot serve a volume", "the worker ended with 3"]
    world.succession.start()
    world.worker.end(EXIT_MISMATCH)
    assert world.heard == ["refused", "ended"]
    assert len(world.workers) == 2


# Handover


def test_stopped_worker_makes_room(world: World, announced: list[str]) -> None:
    """It ends between two requests, nobody comes after it, and a rollback brings another."""
    announced.append("the worker ended with 4")
    outcomes: list[bool] = []
    first = world.serve()
    world.succession.stop(outcomes.append)
    assert (first.told, outcomes) == ([protocol.Stop()], [])
    first.end(EXIT_STOPPED)
    world.succession.start()  # a retry that was on its way
    assert (outcomes, world.workers, world.heard) == ([True], [first], ["ready"])
    world.succession.resume()
    assert len(world.workers) == 2


def test_worker_that_does_not_stop_is_killed(world: World, announced: list[str]) -> None:
    """What it had taken is not answered then; whoever comes next must know."""
    announced.append("the worker ended with -9")
    outcomes: list[bool] = []
    world.serve()
    world.succession.stop(outcomes.append)
    world.loop.advance(STOP_S)
    assert outcomes == [False]
    assert len(world.workers) == 1


def test_unkillable_worker_stops_nobody(world: World, announced: list[str]) -> None:
    """The other keeper's worker must come, stuck or not."""
    announced.append("the worker is stuck in the kernel")
    outcomes: list[bool] = []
    world.serve().mortal = False
    world.succession.stop(outcomes.append)
    world.loop.advance(STOP_S + REAP_S)
    assert outcomes == [False]


def test_without_a_worker_nothing_waits(world: World) -> None:
    """A volume whose worker was just being replaced is handed over at once."""
    outcomes: list[bool] = []
    world.succession.stop(outcomes.append)
    assert outcomes == [False]


@pytest.mark.parametrize("recover", [False, True])
def test_standby_waits_for_the_word(make: Callable[..., World], *, recover: bool) -> None:
    """It is ready for service and watched; those after it serve at once."""
    world = make(standby=True)
    world.succession.start()
    assert world.worker.assignment.standby
    world.worker.say(protocol.Standby(b""))
    world.loop.advance(60)
    assert (world.heard, world.worker.killed) == (["standing by"], False)
    world.succession.attach(recover=recover)
    assert world.worker.told == [protocol.Attach(recover)]
    world.worker.say(protocol.Ready(b""))
    assert world.heard == ["standing by", "ready"]


# The end


def test_abandoned_succession_waits_for_all(world: World, announced: list[str]) -> None:
    """The uid is free once the last process that has it is reaped, also one that was stuck."""
    announced += ["the worker does not answer", "the worker is stuck in the kernel"]
    gone: list[bool] = []
    first = world.serve()
    first.alive = first.mortal = False
    world.loop.advance(PATIENCE_S + PING_S + REAP_S)
    world.succession.abandon(lambda: gone.append(True))
    assert world.worker.killed
    assert gone == []
    first.end(KILLED)
    assert gone == [True]


def test_nothing_to_abandon_is_gone_at_once(world: World) -> None:
    """A volume that never had a worker ends as well."""
    gone: list[bool] = []
    world.succession.abandon(lambda: gone.append(True))
    assert gone == [True]

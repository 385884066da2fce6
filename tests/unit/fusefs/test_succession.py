"""Who serves a volume: workers that die, hang, cannot be killed, or make room for others."""

from __future__ import annotations

import pytest

from fakes.succession import KILLED, World
from fusefs import protocol
from fusefs.succession import HOPE_S, READY_DEADLINE_S, REAP_S, STOP_S
from fusefs.watchdog import PATIENCE_S, PING_S
from fusefs.worker import EXIT_BROKEN, EXIT_MISMATCH, EXIT_STOPPED


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a succession whose workers serve at once."""
    return World(monkeypatch)


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


def test_time_of_service_is_what_counts(world: World, announced: list[str]) -> None:
    """On a busy node a worker takes long to come up; that is no merit of one that then dies."""
    announced.append("the worker ended with -11")
    world.succession.start()
    world.loop.advance(5)
    world.worker.say(protocol.Ready(b""))
    world.loop.advance(0.03)
    world.worker.end(-11)
    assert world.served_s == [pytest.approx(0.03)]


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


def test_broken_content_has_no_successor(world: World, announced: list[str]) -> None:
    """No worker could show it either: what becomes of the volume is its owner's to say."""
    announced.append("the worker ended with 5")
    world.succession.start()
    world.worker.end(EXIT_BROKEN)
    assert world.heard == ["broken"]
    assert len(world.workers) == 1


def test_what_a_worker_says_is_passed_on(world: World) -> None:
    """Whatever is no matter of its succession is its owner's."""
    world.serve().say(protocol.Swapped(2))
    assert world.heard == ["ready", "Swapped"]


# No worker at all


def test_readers_do_not_wait_for_ever(world: World, announced: list[str]) -> None:
    """Workers that never come to serve are tried for two minutes, then the volume is given up."""
    announced += ["the worker is not ready in time", "the worker ended", "no worker has served"]
    world.succession.start()
    world.loop.advance(HOPE_S - 0.1)
    assert "hopeless" not in world.heard
    world.loop.advance(0.2)
    assert world.heard.count("hopeless") == 1


def test_stopped_keeper_gives_nothing_up(world: World, announced: list[str]) -> None:
    """While it does not run it cannot hear of a worker either, and its readers need not fail."""
    announced += ["the worker is not ready in time", "the worker ended"]
    world.succession.start()
    world.loop.stand_still(10 * HOPE_S)
    assert "hopeless" not in world.heard
    world.serve()
    world.loop.advance(2 * HOPE_S)
    assert "hopeless" not in world.heard


@pytest.mark.parametrize("lived_s", [1.0, 119.0])
def test_worker_that_serves_brings_hope(world: World, announced: list[str], lived_s: float) -> None:
    """Only the time without one counts."""
    announced += ["the worker ended"]
    for _ in range(5):
        world.serve()
        world.restarting = False
        world.loop.advance(lived_s)
        world.worker.end(-11)
    assert "hopeless" not in world.heard


def test_handover_is_nothing_to_despair_of(world: World) -> None:
    """Another keeper's worker serves meanwhile."""
    world.succession.start()
    world.succession.stop(lambda _: None)
    world.worker.end(EXIT_STOPPED)
    world.loop.advance(10 * HOPE_S)
    assert world.heard == []


# Handover


def test_stopped_worker_makes_room(world: World) -> None:
    """It ends between two requests, nobody comes after it, and a rollback brings another."""
    outcomes: list[bool] = []
    first = world.serve()
    world.succession.stop(outcomes.append)
    assert (first.told, outcomes) == ([protocol.Stop()], [])
    first.end(EXIT_STOPPED)
    world.succession.start()  # a retry that was on its way
    assert (outcomes, world.workers, world.heard) == ([True], [first], ["ready"])
    world.succession.resume()
    for _ in range(2):  # the rollback, and another retry that was on its way
        world.succession.start()
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
def test_standby_waits_for_the_word(monkeypatch: pytest.MonkeyPatch, *, recover: bool) -> None:
    """It is ready for service and watched; those after it serve at once."""
    world = World(monkeypatch, standby=True)
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

"""How a volume's effects are carried out: real targets, timers and children, no kernel."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest

from fakes.privatemount import FakeConnection, FakeWorkerProcess
from fakes.trees import specs
from fusefs import children, effects, freeze, host, protocol, sandbox, succession
from fusefs.basehost import Owner, Place
from fusefs.errors import KernelUnsupported, TargetRefused, VolumeFailed, VolumeUnknown
from fusefs.host import VolumeHost
from fusefs.kept import KeptGenerations
from fusefs.loop import Loop
from fusefs.nodeids import PRIME_NAME
from fusefs.snapshot import Sealed, seal
from fusefs.target import KubeletRoot
from fusefs.volume import Volume
from fusefs.worker import EXIT_STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BELOW = "pods/uid-1/volumes/kubernetes.io~csi/secrets"
FILES = [{"a": b"one", "b": b""}, {"a": b"two", "c": b""}, {"a": b"three"}]
PUBLISH = effects.Ticket(1, 1)


class World:
    """One volume's host, and everything around it that is not the kernel's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mount = path / BELOW / "mount"
        self.mount.parent.mkdir(parents=True)
        data = {"driverName": "d", "volumeHandle": "v"}
        (self.mount.parent / "vol_data.json").write_text(json.dumps(data), encoding="utf-8")
        self.loop = Loop()
        self.root = KubeletRoot(str(path))
        self.answers: list[tuple[effects.Ticket, Exception | None]] = []
        self.notices: list[protocol.KeeperNotice] = []
        self.closed = self.gone = 0
        self.sealed: list[Sealed] = []
        for number, files in enumerate(FILES, 1):
            previous = self.sealed[-1].snapshot if self.sealed else None
            self.sealed.append(seal(specs(files), previous=previous, now_ns=number))
        self.host = self._host()

    def _host(self) -> VolumeHost:
        kept = KeptGenerations()
        kept.add(1, os.dup(self.sealed[0].snapshot.fd), self.sealed[0].snapshot.digest)
        return VolumeHost(
            self.loop,
            Place(slot=0, private=str(self.path / "private"), uid=70_000),
            self.root.target(str(self.mount), volume_id="v", driver="d"),
            kept,
            Owner(
                answer=lambda ticket, error: self.answers.append((ticket, error)),
                announce=lambda notice, _: self.notices.append(notice),
                closed=lambda _: self.count("closed"),
                gone=lambda _: self.count("gone"),
            ),
            volume_id="v",
            record=b"record",
            state=Volume(kept.newest, PUBLISH),
        )

    def count(self, what: str) -> None:
        """Note that the host has ended."""
        setattr(self, what, getattr(self, what) + 1)

    @property
    def connection(self) -> FakeConnection:
        """The volume's connection."""
        found = self.host._connection  # noqa: SLF001 - what it owns is what is tested
        assert isinstance(found, FakeConnection)
        return found

    @property
    def worker(self) -> FakeWorkerProcess:
        """The worker of the moment."""
        found = self.host._workers._worker  # noqa: SLF001
        assert isinstance(found, FakeWorkerProcess)
        return found

    def until(self, happened: Callable[[], object]) -> None:
        """Let the keeper work until something has happened."""
        deadline = self.loop.call_later(10, lambda: pytest.fail("it does not happen"))
        while not happened():
            self.loop.call_later(0.005, self.loop.stop)
            self.loop.run()
        deadline.cancel()

    def publish(self) -> None:
        """Publish from beginning to end."""
        self.host.begin()
        self.worker.say(protocol.Ready(b"reply"))
        self.until(lambda: self.host.state.phase == "settling")
        self.worker.say(protocol.PrimingEnded())
        # From now on the directory shows what the worker would.
        for name, content in FILES[0].items():
            (self.connection.private / name).write_bytes(content)

    def rotate(self, generation: int) -> effects.Ticket:
        """Hand in a generation."""
        ticket = effects.Ticket(1, 100 + generation)
        made = self.sealed[generation - 1]
        self.host.kept.add(generation, os.dup(made.snapshot.fd), made.snapshot.digest)
        self.host.rotate(effects.Rotation(generation, generation - 1, made.plan, ticket))
        return ticket

    def close(self) -> None:
        """End the volume if it has not ended."""
        self.host.unpublish()
        self.until(lambda: self.gone)
        assert (self.closed, self.gone) == (1, 1)
        for made in self.sealed:
            made.snapshot.close()
        self.root.close()
        self.loop.close()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a volume that has not begun; nothing of it is left in the end (conftest)."""
    monkeypatch.setattr(host, "Connection", FakeConnection)
    monkeypatch.setattr(succession, "WorkerProcess", FakeWorkerProcess)
    monkeypatch.setattr(sandbox, "empty_root", lambda: os.open("/", os.O_PATH))
    monkeypatch.setattr(children, "enter", lambda *_, directory, **__: os.fchdir(directory))
    made = World(tmp_path)
    yield made
    made.close()


def test_published_volume_has_come_up_in_order(world: World) -> None:
    """The target shows the volume after the priming, and only then is the request answered."""
    world.host.begin()
    assignment = world.worker.assignment
    assert [number for number, _ in assignment.snapshots] == [1]
    assert (assignment.first_reply, assignment.primed, assignment.plan) == (None, False, None)
    assert (assignment.uid, assignment.pending) == (70_000, None)
    world.worker.say(protocol.Ready(b"reply"))
    world.until(lambda: world.host.state.phase == "settling")
    assert (world.answers, world.connection.shown) == ([], False)
    assert world.worker.told == [protocol.Primed()]
    world.worker.say(protocol.PrimingEnded())
    assert (world.answers, world.connection.shown) == ([(PUBLISH, None)], True)
    assert world.connection.first_reply == b"reply"
    assert world.mount.is_dir()


def test_rotation_is_carried_out_by_a_child(world: World) -> None:
    """Names and link follow the plan on the private mount, which is writable meanwhile only."""
    world.publish()
    ticket = world.rotate(2)
    assert world.worker.told[1:] == [
        protocol.Swap(2, world.sealed[1].plan, world.sealed[1].snapshot.digest)
    ]
    world.worker.say(protocol.Swapped(2))
    world.until(lambda: world.host.state.phase == "serving")
    private = world.connection.private
    names = {path.name for path in private.iterdir()} - {PRIME_NAME.decode(), "..data"}
    assert names == {"a", "c"}
    assert str((private / "..data").readlink()) == "..2"
    assert (private / "a").read_bytes() == b"\nne"  # the byte that raises the event
    assert world.answers[-1] == (ticket, None)
    assert world.worker.told[2:] == [protocol.Finish()]
    assert [what for what in world.connection.done if what in ("rw", "ro")] == ["rw", "ro"]


def test_failed_touch_child_has_a_successor(world: World) -> None:
    """A rotation is acknowledged when a child got through, however many it takes."""
    world.publish()
    obstacle = world.connection.private / "..data"
    obstacle.unlink()
    obstacle.mkdir()
    (obstacle / "x").touch()
    ticket = world.rotate(2)
    world.worker.say(protocol.Swapped(2))
    world.until(lambda: world.connection.done[-1] == "ro")
    assert world.host.state.phase == "touching"
    (obstacle / "x").unlink()
    obstacle.rmdir()
    world.until(lambda: world.answers[-1] == (ticket, None))


def test_successor_is_forked_with_what_holds(world: World, announced: list[str]) -> None:
    """A worker that died during a rotation is replaced by one that knows its plan."""
    announced.append("the worker ended with -9")
    world.publish()
    world.rotate(2)
    world.rotate(3)  # waits its turn: no worker may start on it
    world.worker.end(-9, 10.0)
    world.until(lambda: world.host.worker_pid)
    assignment = world.worker.assignment
    assert [number for number, _ in assignment.snapshots] == [1, 2]
    assert (assignment.pending, assignment.plan) == (2, world.sealed[1].plan)
    assert (assignment.first_reply, assignment.primed) == (b"reply", True)


def test_worker_comes_back_after_a_handover(
    world: World, monkeypatch: pytest.MonkeyPatch, announced: list[str]
) -> None:
    """A node that lets no process be forked at that moment delays it, and stops nobody else."""
    announced.append("StartWorker failed: .*no processes")
    world.publish()
    before = world.worker
    answered: list[bool] = []
    world.host.stop_serving(answered.append)
    before.end(EXIT_STOPPED, 10.0)
    assert (before.told[-1], answered) == (protocol.Stop(), [True])

    def refuse() -> int:
        monkeypatch.setattr(sandbox, "empty_root", lambda: os.open("/", os.O_PATH))
        raise OSError(errno.EAGAIN, "no processes")

    monkeypatch.setattr(sandbox, "empty_root", refuse)
    world.host.serve_again()
    world.until(lambda: world.host.worker_pid)
    assert world.worker is not before


def test_aborted_connection_ends_the_volume(world: World, announced: list[str]) -> None:
    """A worker that ends because its connection was aborted has no successor.

    The dead mount stays at the target, for the next publish to repair.
    """
    announced.append("the worker ended with 0")
    world.publish()
    ticket = world.rotate(2)
    world.connection.dead = True
    world.worker.end(0, 10.0)
    found, error = world.answers[-1]
    assert found == ticket
    assert isinstance(error, VolumeFailed)
    assert world.closed == 1
    assert world.mount.exists()


def test_frozen_volume_stays_at_its_target(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """First no writes, then no handles, then a child that reads it all, then nobody is left."""
    world.publish()
    looked = world.path / "looked"
    monkeypatch.setattr(freeze, "fill", lambda *_: looked.write_text(str(os.getpid())) * 0)
    world.host.freeze()
    assert (world.connection.done[-1], world.worker.told[-1]) == ("ro", protocol.Freeze())
    world.worker.say(protocol.Freezing())
    world.until(lambda: world.worker.told[-1] == protocol.Drain())
    assert int(looked.read_text()) != os.getpid(), "it waits for itself where it serves a mount"
    world.worker.say(protocol.Drained())
    assert (world.closed, world.gone) == (1, 1)
    assert world.notices[-1] == protocol.LetGo("v")
    assert world.mount.exists()


def test_frozen_volume_keeps_nothing_that_it_refused(world: World) -> None:
    """A node server that comes now is told of what is shown: for anything newer it needs a plan."""
    world.publish()
    world.rotate(2)
    waiting = world.rotate(3)
    world.host.freeze()
    assert [ticket for ticket, error in world.answers if error] == [waiting]
    assert world.host.kept.generations() == [1, 2]
    world.worker.say(protocol.Rejected(2, "it is broken"))
    late = world.rotate(2)
    assert world.answers[-1][0] == late
    assert world.host.kept.generations() == [1]


def test_busy_file_is_waited_for_in_a_freeze(world: World, announced: list[str]) -> None:
    """A superblock that cannot be read-only yet is tried again; readers notice nothing."""
    announced.append("Fossilize failed: a file is still open for writing")
    world.publish()
    world.connection.failing["busy"] = OSError(errno.EBUSY, "busy")
    world.host.freeze()
    assert protocol.Freeze() not in world.worker.told
    del world.connection.failing["busy"]
    world.until(lambda: world.worker.told[-1] == protocol.Freeze())


def test_held_file_does_not_stop_a_freeze(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that fails has a successor, and a file that a pod never closes is not waited for."""
    monkeypatch.setattr(host, "DRAIN_S", 0.01)
    monkeypatch.setattr(freeze, "fill", lambda *_: int(not (world.path / "sound").exists()))
    world.publish()
    world.host.freeze()
    world.worker.say(protocol.Freezing())
    world.until(lambda: world.worker.told.count(protocol.Freeze()) == 2)
    (world.path / "sound").touch()
    world.worker.say(protocol.Freezing())
    world.until(lambda: world.closed)


def test_lying_worker_keeps_what_is_needed(world: World) -> None:
    """Counts and claims of a worker cannot make the keeper let go of what others need."""
    world.publish()
    world.rotate(2)
    world.worker.say(protocol.Dropped((1, 2, 3, 99)))
    world.worker.say(protocol.Swapped(3))
    world.worker.say(protocol.PrimingEnded())
    assert world.host.kept.generations() == [1, 2]
    assert world.host.state.phase == "swapping"


def test_rejected_generation_is_discarded(world: World) -> None:
    """Its memory is let go of, and whoever handed it in hears why."""
    world.publish()
    ticket = world.rotate(2)
    world.worker.say(protocol.Rejected(2, "it is broken"))
    assert world.host.kept.generations() == [1]
    found, error = world.answers[-1]
    assert found == ticket
    assert "it is broken" in str(error)


# Failures


@pytest.mark.parametrize("failing", ["require", "open_mount", "attach"])
def test_failed_publish_leaves_only_an_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, announced: list[str], failing: str
) -> None:
    """Whatever fails while the volume comes up: one answer with the reason, no target."""
    announced.append("(StartWorker|StartPriming|Attach) failed: the reason")

    class Failing(FakeConnection):
        def __init__(self, private: str) -> None:
            super().__init__(private)
            self.failing[failing] = KernelUnsupported("the reason")

    monkeypatch.setattr(host, "Connection", Failing)
    world.host.begin()
    if failing != "require":
        world.worker.say(protocol.Ready(b""))
    if failing == "attach":
        world.until(lambda: world.host.state.phase == "settling")
        world.worker.say(protocol.PrimingEnded())
    [(ticket, error)] = world.answers
    assert ticket == PUBLISH
    assert isinstance(error, KernelUnsupported)
    assert not world.mount.exists()


def test_failed_teardown_still_answers(world: World, announced: list[str]) -> None:
    """Whoever waits hears of the end, and nothing stays open, also where the end goes wrong."""
    announced.append("TearDown failed")
    world.publish()
    ticket = world.rotate(2)
    world.connection.failing["close"] = OSError(errno.EBUSY, "the mount is busy")
    world.host.unpublish()
    found, error = world.answers[-1]
    assert found == ticket
    assert isinstance(error, VolumeUnknown)
    assert (world.closed, world.gone) == (1, 1)
    assert not world.mount.exists()


def test_obstacle_at_the_target_is_answered(world: World, announced: list[str]) -> None:
    """A file where the volume should be stays, and the request does not wait for ever."""
    announced.append("ClearTarget failed")
    world.mount.touch()
    world.host.begin()
    [(ticket, error)] = world.answers
    assert ticket == PUBLISH
    assert isinstance(error, TargetRefused)
    assert world.mount.is_file()


def test_busy_superblock_is_read_only_later(world: World) -> None:
    """A file that is still open for writing delays it; the rotation is over all the same."""
    world.publish()
    world.connection.failing["busy"] = OSError()
    world.rotate(2)
    world.worker.say(protocol.Swapped(2))
    world.until(lambda: world.host.state.phase == "serving")
    asked = world.connection.done.count("ro")
    world.until(lambda: world.connection.done.count("ro") > asked)
    del world.connection.failing["busy"]


def test_unmounted_target_is_mounted_again(world: World, announced: list[str]) -> None:
    """A repeated publish puts the volume back where somebody took it away."""
    announced.append("the target was unmounted; it is mounted again")
    world.publish()
    again = effects.Ticket(2, 1)
    world.host.publish_again(again)
    assert world.connection.done.count("attach") == 1
    world.connection.shown = False
    world.host.publish_again(again)
    assert world.connection.shown
    assert world.answers[1:] == [(again, None)] * 2


def test_target_taken_by_another_is_refused(world: World, announced: list[str]) -> None:
    """A repeated publish that cannot mount again says so."""
    announced.append("the target was unmounted; it is mounted again")
    world.publish()
    world.connection.shown = False
    world.connection.failing["attach"] = TargetRefused("a foreign mount")
    with pytest.raises(TargetRefused, match="a foreign mount"):
        world.host.publish_again(effects.Ticket(2, 1))
    assert world.answers == [(PUBLISH, None)]


def test_worker_not_ready_in_time_is_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch, announced: list[str]
) -> None:
    """A worker that hangs before it serves is killed; one that serves is left alone."""
    announced.append("the worker is not ready in time; it is replaced")
    monkeypatch.setattr(succession, "READY_DEADLINE_S", 0.01)
    world.host.begin()
    hanging = world.worker
    world.until(lambda: hanging.killed)


def test_idle_generations_are_offered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few seconds the worker hears what may go, and what must by force."""
    monkeypatch.setattr(host, "SWEEP_S", 0.01)
    monkeypatch.setattr(
        world.host.kept, "removable", lambda *, spare: ([1], [2]) if 1 in spare else ([], [])
    )
    world.publish()
    world.until(lambda: protocol.Drop((1,), forced=False) in world.worker.told)
    assert protocol.Drop((2,), forced=True) in world.worker.told

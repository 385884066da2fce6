"""A worker as the keeper sees it: what it says is heard, what it lies costs only itself."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from fusefs import packets, protocol, worker
from fusefs.loop import Loop
from fusefs.worker import Assignment
from fusefs.workerprocess import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def assignment(control: socket.socket) -> Assignment:
    """Return an assignment of which only the control socket is used."""
    return Assignment(
        device=-1,
        control=control,
        usage=-1,
        root=-1,
        init_request=b"",
        first_reply=None,
        snapshots=(),
        pending=None,
        plan=None,
        primed=True,
        uid=1,
        keeper=1,
    )


class Watched:
    """A forked worker that lives a life of the test's making, and what the keeper hears of it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, life: Callable[[socket.socket], int]
    ) -> None:
        monkeypatch.setattr(worker, "run", lambda made: life(made.control))
        self.loop = Loop()
        self.said: list[protocol.FromWorker] = []
        self.ended: list[int] = []
        self.process = WorkerProcess(self.loop, assignment, self.said.append, self.end)

    def end(self, code: int, lived_s: float) -> None:
        """Hear of the worker's end."""
        assert lived_s >= 0
        self.ended.append(code)
        self.loop.stop()

    def run(self) -> None:
        """Let the keeper work until the worker has ended."""
        deadline = self.loop.call_later(10, self.loop.stop)
        self.loop.run()
        deadline.cancel()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watched]]:
    """Return a function that forks a worker with a life."""
    started: list[Watched] = []

    def made(life: Callable[[socket.socket], int]) -> Watched:
        started.append(Watched(monkeypatch, life))
        return started[-1]

    yield made
    for one in started:
        one.process.kill()
        one.loop.close()


def wait_for_ever(_: socket.socket) -> int:
    """Do nothing until killed."""
    signal.pause()
    return 0


def test_worker_is_heard_to_its_end(start: Callable[..., Watched]) -> None:
    """What it said before it ended comes before the news of its end."""

    def life(control: socket.socket) -> int:
        packets.send(control, protocol.Ready(b"reply"))
        packets.send(control, protocol.Dropped((1, 2)))
        return 3

    watched = start(life)
    watched.run()
    assert watched.said == [protocol.Ready(b"reply"), protocol.Dropped((1, 2))]
    assert watched.ended == [3]


def test_worker_is_told_what_it_reads(start: Callable[..., Watched]) -> None:
    """Messages reach it in their order; a worker that has ended is told nothing."""

    def life(control: socket.socket) -> int:
        control.settimeout(10)
        received = [packets.receive(control, protocol.AT_WORKER) for _ in range(2)]
        return int(received == [(protocol.Primed(), []), (protocol.Finish(), [])])

    watched = start(life)
    watched.process.tell(protocol.Primed())
    watched.process.tell(protocol.Finish())
    watched.run()
    assert watched.ended == [1]
    watched.process.tell(protocol.Finish())


@pytest.mark.parametrize(
    "packet",
    [b"i\xc1", b"", b"i" + b"x" * packets.INLINE_BYTES, b"m"],
    ids=["garbage", "nothing", "large", "no-body"],
)
def test_worker_that_speaks_otherwise_is_killed(
    start: Callable[..., Watched], announced: list[str], packet: bytes
) -> None:
    """It is compromised or broken; its successor serves the volume."""

    def life(control: socket.socket) -> int:
        control.send(packet) if packet else control.shutdown(socket.SHUT_RDWR)
        return wait_for_ever(control)

    if packet:
        announced.append("worker .* is given up")
    watched = start(life)
    watched.run()
    assert watched.ended == [-signal.SIGKILL]
    assert watched.said == []


def test_message_in_a_memory_file_is_refused(
    start: Callable[..., Watched], announced: list[str]
) -> None:
    """All that a worker has to say fits a packet: the keeper maps none of its memory."""
    announced.append("worker .* is given up")

    def life(control: socket.socket) -> int:
        packets.send(control, protocol.Ready(b"r" * (packets.INLINE_BYTES + 1)))
        return wait_for_ever(control)

    watched = start(life)
    watched.run()
    assert watched.ended == [-signal.SIGKILL]


def test_descriptors_of_a_worker_are_closed(start: Callable[..., Watched]) -> None:
    """A worker cannot fill the keeper's table of descriptors (conftest)."""

    def life(control: socket.socket) -> int:
        null = os.open("/dev/null", os.O_RDONLY)
        packets.send(control, protocol.Swapped(1), [null] * 3)
        return 0

    watched = start(life)
    watched.run()
    assert watched.said == [protocol.Swapped(1)]


def test_worker_that_does_not_listen_is_killed(
    start: Callable[..., Watched], announced: list[str]
) -> None:
    """The keeper waits for nobody; a successor learns everything at its start."""
    announced.append("worker .* does not listen")
    watched = start(wait_for_ever)
    for _ in range(1000):
        watched.process.tell(protocol.Swap(1, b"x" * 10_000))
    watched.run()
    assert watched.ended == [-signal.SIGKILL]


def test_abandoned_worker_is_killed_and_silent(start: Callable[..., Watched]) -> None:
    """Nothing more is heard of it but that it is gone, once it has been reaped."""

    def life(control: socket.socket) -> int:
        packets.send(control, protocol.Swapped(1))
        return wait_for_ever(control)

    watched = start(life)
    gone: list[int] = []

    def reaped() -> None:
        with pytest.raises(ChildProcessError):
            os.waitpid(watched.process.pid, os.WNOHANG)
        gone.append(watched.process.pid)
        watched.loop.stop()

    watched.process.abandon(reaped)
    assert gone == []
    watched.run()
    assert gone == [watched.process.pid]
    assert (watched.said, watched.ended) == ([], [])


def test_ended_worker_is_gone_when_abandoned(start: Callable[..., Watched]) -> None:
    """Its pid may be another process's by now: it is not signalled any more."""
    watched = start(lambda _: 0)
    watched.run()
    gone: list[bool] = []
    watched.process.abandon(lambda: gone.append(True))
    watched.process.kill()
    assert gone == [True]

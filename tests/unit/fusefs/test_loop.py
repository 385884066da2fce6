"""The keeper's loop: descriptors, timers, children."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from fusefs import children
from fusefs.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Return a loop that gives up after a while."""
    made = Loop()
    made.call_later(10, made.stop)
    yield made
    made.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def until_stopped(loop: Loop, heard: list[int]) -> Callable[[int], None]:
    """Return a callback that notes an exit code and stops the loop."""

    def ended(code: int) -> None:
        heard.append(code)
        loop.stop()

    return ended


def test_readable_descriptors_call_back(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    """The callback comes again as long as something is to be read."""
    heard = []

    def read() -> None:
        heard.append(ends[1].recv(1))
        if heard[-1] == b"":
            loop.stop()

    loop.watch(ends[1].fileno(), read)
    ends[0].send(b"ab")
    ends[0].shutdown(socket.SHUT_WR)
    loop.run()
    assert heard == [b"a", b"b", b""]


def test_unwatched_descriptors_are_silent(loop: Loop) -> None:
    """A callback that unwatches another descriptor of the same round is the last one."""
    pairs = [socket.socketpair() for _ in range(2)]
    heard = []

    def read(number: int) -> None:
        heard.append(number)
        loop.unwatch(pairs[1 - number][1].fileno())
        loop.stop()

    for number, (ours, theirs) in enumerate(pairs):
        ours.send(b"x")
        loop.watch(theirs.fileno(), lambda number=number: read(number))  # type: ignore[misc]
    loop.run()
    assert len(heard) == 1
    for pair in pairs:
        for end in pair:
            end.close()


def test_reused_number_is_another_descriptor(loop: Loop) -> None:
    """What was readable under a number that was closed meanwhile does not reach its new owner."""
    pairs = [socket.socketpair() for _ in range(2)]
    heard: list[str] = []
    fresh: list[socket.socket] = []

    def replace(other: int) -> None:
        heard.append("first")
        reading, writing = socket.socketpair()
        number = pairs[other][1].fileno()
        loop.unwatch(number)
        pairs[other][1].close()
        os.dup2(reading.fileno(), number)
        reading.close()
        fresh.extend((socket.socket(fileno=number), writing))
        loop.watch(number, lambda: heard.append("stale"))
        loop.call_later(0, loop.stop)

    for index, (ours, theirs) in enumerate(pairs):
        ours.send(b"x")
        loop.watch(theirs.fileno(), lambda index=index: replace(1 - index))  # type: ignore[misc]
    loop.run()
    assert heard == ["first"]
    for end in [*pairs[0], *pairs[1], *fresh]:
        end.close()


def test_timers_come_in_the_order_they_are_due(loop: Loop) -> None:
    """Those due at the same time come in the order in which they were asked for."""
    heard: list[str] = []
    for delay, name in ((0.02, "last"), (0.0, "first"), (0.0, "second"), (0.01, "third")):
        loop.call_later(delay, lambda name=name: heard.append(name))  # type: ignore[misc]
    loop.call_later(0.03, loop.stop)
    loop.run()
    assert heard == ["first", "second", "third", "last"]


def test_cancelled_timers_never_come(loop: Loop) -> None:
    """Cancelling works before the time has come, from another timer, and twice."""
    heard: list[str] = []
    late = loop.call_later(0.01, lambda: heard.append("late"))
    early = loop.call_later(0.0, lambda: heard.append("early"))
    early.cancel()
    early.cancel()
    loop.call_later(0.0, late.cancel)
    loop.call_later(0.02, loop.stop)
    loop.run()
    assert heard == []


def test_failed_callback_is_logged_and_survived(loop: Loop, announced: list[str]) -> None:
    """One volume's trouble does not end the others."""
    announced.append("a callback of the keeper failed")

    def fail() -> None:
        message = "trouble"
        raise KeyError(message)

    loop.call_later(0.0, fail)
    loop.call_later(0.0, loop.stop)
    loop.run()


@pytest.mark.parametrize("code", [0, 7])
def test_ended_child_is_reaped_with_its_code(loop: Loop, code: int) -> None:
    """The callback gets the exit code, and no zombie is left."""
    heard: list[int] = []
    pid = children.fork(lambda: code)
    loop.watch_child(pid, until_stopped(loop, heard))
    loop.run()
    assert heard == [code]
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_killed_child_has_a_negative_code(loop: Loop) -> None:
    """The signal's number tells how it ended."""
    heard: list[int] = []

    def wait() -> int:
        signal.pause()
        return 0

    pid = children.fork(wait)
    loop.watch_child(pid, until_stopped(loop, heard))
    loop.call_later(0.0, lambda: os.kill(pid, signal.SIGKILL))
    loop.run()
    assert heard == [-signal.SIGKILL]


def test_failed_child_exits_with_one(loop: Loop, capfd: pytest.CaptureFixture[str]) -> None:
    """What a child's function raises stays in the child."""
    heard: list[int] = []

    def fail() -> int:
        message = "trouble"
        raise SystemExit(message)

    pid = children.fork(fail)
    loop.watch_child(pid, until_stopped(loop, heard))
    loop.run()
    assert heard == [children.EXIT_FAILED]
    capfd.readouterr()

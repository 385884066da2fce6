"""How a worker takes the device over, and when its service ends."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pyfuse3
import pytest
import trio

from fusefs import initmsg, session
from fusefs.gate import Gate
from fusefs.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLY = b"reply to INIT"

HANDSHAKE = """
import struct, pyfuse3, trio
from fusefs import session

body = struct.pack("=IIIII", 7, 45, 0x20000, 0x73FFFFFB, 1 << 7) + bytes(44)
request = struct.pack("=IIQQIIIHH", 40 + len(body), 26, 2, 0, 0, 0, 0, 0, 0) + body

async def main():
    started = await session.handshake(pyfuse3.Operations(), request)
    reply = started.reply
    length, error, unique = struct.unpack_from("=IiQ", reply)
    major, minor, readahead, flags = struct.unpack_from("=IIII", reply, 16)
    assert (length, error, unique, major) == (len(reply), 0, 2, 7), reply
    assert flags & 1 << 23, "links are not cached"
    assert not flags & 1 << 22, "replies may not fit a packet"
    try:
        await session.handshake(pyfuse3.Operations(), request)
    except RuntimeError as again:
        print(again)

trio.run(main)
"""


@pytest.fixture
def device() -> Iterator[tuple[int, socket.socket, session.Started]]:
    """Return a device, the kernel's end of it, and a session that waits for it."""
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    relay, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    number = theirs.detach()
    with kernel, relay:
        kernel.settimeout(0)
        yield ours.detach(), kernel, session.Started(number, REPLY, relay)
        os.close(number)


def gate(device: tuple[int, socket.socket, session.Started]) -> Gate:
    """Put the device behind the session."""
    fd, _, started = device
    return session.direct(started, fd, Pace(100, clock=lambda: 0.0), lambda: None)


def test_first_worker_answers_init(device: tuple[int, socket.socket, session.Started]) -> None:
    """The kernel gets the reply, and the session's descriptor is the device from then on."""
    _, kernel, started = device
    opened = gate(device)
    assert opened.device == started.number
    session.answer_init(opened.device, REPLY)
    assert kernel.recv(100) == REPLY
    assert not os.get_blocking(started.number)
    assert not os.get_inheritable(started.number)


def test_later_worker_asks_for_what_was_taken(
    device: tuple[int, socket.socket, session.Started],
) -> None:
    """INIT is answered already; the kernel is asked to send again what a dead worker had."""
    opened = gate(device)
    opened.recover()
    assert device[1].recv(100) == initmsg.resend()


def test_other_negotiation_is_refused(device: tuple[int, socket.socket, session.Started]) -> None:
    """A worker that would speak otherwise than the first one must not serve."""
    fd, _, started = device
    started.check(None)
    started.check(REPLY)
    with pytest.raises(session.InitMismatch):
        started.check(b"another")
    os.close(fd)


class Service:
    """Stands for pyfuse3's main loop: fails as it is told, and then ends."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def __call__(self, _: int, __: int) -> None:
        """Serve until something goes wrong."""
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture(autouse=True)
def _own_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give pyfuse3 its trio back."""
    monkeypatch.setattr(pyfuse3, "trio", trio)


def idle_gate() -> Gate:
    """Return a gate that nobody comes to."""
    return Gate(-1, Pace(100))


def again() -> OSError:
    """Return what a read of the device says when a request was withdrawn."""
    return OSError(errno.EAGAIN, "again")


async def test_withdrawn_requests_end_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that was readable and is no longer is read again, however deep the error."""
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [again(), again()])])
    service = Service(ExceptionGroup("one", [again()]), nested)
    monkeypatch.setattr(pyfuse3, "main", service)
    await session.serve(idle_gate())
    assert service.calls == 3


@pytest.mark.parametrize(
    "error",
    [
        ExceptionGroup("g", [OSError(errno.ENODEV, "x")]),
        ExceptionGroup("g", [again(), OSError(errno.EIO, "x")]),
        ExceptionGroup("g", [KeyError("a")]),
    ],
    ids=["gone", "mixed", "defect"],
)
async def test_other_errors_end_the_service(
    monkeypatch: pytest.MonkeyPatch, error: ExceptionGroup[Exception]
) -> None:
    """What is not understood ends the worker, whose successor starts anew."""
    monkeypatch.setattr(pyfuse3, "main", Service(error))
    with pytest.raises(ExceptionGroup):
        await session.serve(idle_gate())


def test_handshake_is_made_without_a_kernel() -> None:
    """Libfuse answers a recorded INIT on a socket pair, once in a process."""
    done = subprocess.run(
        [sys.executable, "-c", HANDSHAKE], check=False, capture_output=True, text=True, timeout=50
    )
    assert done.stdout == "pyfuse3 has one session per process\n", done.stderr

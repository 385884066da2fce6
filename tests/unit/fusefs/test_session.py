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

from fusefs import initmsg, session

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLY = b"reply to INIT"

HANDSHAKE = """
import struct, pyfuse3, trio
from fusefs import session

body = struct.pack("=IIIII", 7, 45, 0x20000, 0x73FFFFFB, 1 << 7) + bytes(44)
request = struct.pack("=IIQQIIIHH", 40 + len(body), 26, 2, 0, 0, 0, 0, 0, 0) + body

async def main():
    number, reply = await session.handshake(pyfuse3.Operations(), request)
    length, error, unique = struct.unpack_from("=IiQ", reply)
    major, minor, readahead, flags = struct.unpack_from("=IIII", reply, 16)
    assert (length, error, unique, major) == (len(reply), 0, 2, 7), reply
    assert flags & 1 << 23, "links are not cached"
    try:
        await session.handshake(pyfuse3.Operations(), request)
    except RuntimeError as again:
        print(again)

trio.run(main)
"""


@pytest.fixture
def device() -> Iterator[tuple[int, socket.socket, int]]:
    """Return a device, the kernel's end of it, and the number of the session's descriptor."""
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    number = os.open("/dev/null", os.O_RDWR)
    with ours, kernel:
        kernel.settimeout(0)
        yield ours.fileno(), kernel, number
        os.close(number)


def test_first_worker_answers_init(device: tuple[int, socket.socket, int]) -> None:
    """The kernel gets the reply, and the session's descriptor is the device from then on."""
    fd, kernel, number = device
    session.attach(number, fd, REPLY, None)
    assert kernel.recv(100) == REPLY
    assert os.path.sameopenfile(number, fd)
    assert not os.get_blocking(number)
    assert not os.get_inheritable(number)


def test_later_worker_asks_for_what_was_taken(device: tuple[int, socket.socket, int]) -> None:
    """INIT is answered already; the kernel is asked to send again what a dead worker had."""
    fd, kernel, number = device
    session.attach(number, fd, REPLY, REPLY)
    assert kernel.recv(100) == initmsg.resend()


def test_other_negotiation_touches_nothing(device: tuple[int, socket.socket, int]) -> None:
    """A worker that would speak otherwise than the first one must not serve."""
    fd, kernel, number = device
    with pytest.raises(session.InitMismatch):
        session.attach(number, fd, REPLY, b"another")
    with pytest.raises(BlockingIOError):
        kernel.recv(100)
    assert not os.path.sameopenfile(number, fd)


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


def again() -> OSError:
    """Return what a read of the device says when a request was withdrawn."""
    return OSError(errno.EAGAIN, "again")


async def test_withdrawn_requests_end_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that was readable and is no longer is read again, however deep the error."""
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [again(), again()])])
    service = Service(ExceptionGroup("one", [again()]), nested)
    monkeypatch.setattr(pyfuse3, "main", service)
    await session.serve()
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
        await session.serve()


def test_handshake_is_made_without_a_kernel() -> None:
    """Libfuse answers a recorded INIT on a socket pair, once in a process."""
    done = subprocess.run(
        [sys.executable, "-c", HANDSHAKE], check=False, capture_output=True, text=True, timeout=50
    )
    assert done.stdout == "pyfuse3 has one session per process\n", done.stderr

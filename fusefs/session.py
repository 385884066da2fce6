"""The pyfuse3 session of a worker: replay of INIT, then service of the real device.

libfuse answers nothing before it has seen INIT, and the kernel sends INIT once. So the session
starts on a socket pair, is fed the recorded request there, and its reply goes to the kernel the
first time and is compared with the first reply ever after. Then the real device takes the socket's
descriptor number and libfuse never notices.
"""

import contextlib
import errno
import logging
import os
import socket
from typing import Final

import pyfuse3
import trio

from fusefs import initmsg

log = logging.getLogger(__name__)

_REPLY_BYTES: Final = 65536
_HANDSHAKE_S: Final = 5.0
_started = False


class InitMismatch(Exception):
    """This worker would negotiate other things than the first one did; it must not serve."""


async def handshake(operations: pyfuse3.Operations, request: bytes) -> tuple[int, bytes]:
    """Start the session of this process and feed it INIT.

    Returns:
        The descriptor number that the session reads, and the reply to INIT as the kernel gets it.

    Raises:
        RuntimeError: Called twice in a process: pyfuse3 has one session.
        trio.TooSlowError: libfuse did not answer.
    """
    global _started  # noqa: PLW0603 - pyfuse3's session is one per process as well
    if _started:
        message = "pyfuse3 has one session per process"
        raise RuntimeError(message)
    _started = True
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    number = theirs.detach()
    with ours:
        ours.settimeout(0)
        pyfuse3.init(operations, f"/dev/fd/{number}", set())
        with trio.fail_after(_HANDSHAKE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pyfuse3.main, 1, 1)
                ours.send(request)
                await trio.lowlevel.wait_readable(ours)
                reply = ours.recv(_REPLY_BYTES)
                nursery.cancel_scope.cancel()
    return number, initmsg.with_cached_symlinks(reply, initmsg.offered_flags(request))


def attach(number: int, device: int, reply: bytes, first_reply: bytes | None) -> None:
    """Put the real device behind the session.

    Args:
        number: The descriptor number from `handshake`.
        device: The FUSE device of the volume.
        reply: This session's reply to INIT.
        first_reply: What the first worker of the volume replied; None when this is the first one.

    Raises:
        InitMismatch: `reply` differs from `first_reply`; the connection was not touched.
    """
    if first_reply is not None and reply != first_reply:
        raise InitMismatch
    # Readiness may be stale (a request can be withdrawn), and a blocking read would stop the loop.
    os.set_blocking(device, False)
    os.dup2(device, number, inheritable=False)
    if first_reply is not None:
        os.write(device, initmsg.resend())
        return
    # ENOENT: a predecessor answered and died before it could say so.
    with contextlib.suppress(FileNotFoundError):
        os.write(device, reply)


async def serve() -> None:
    """Answer the kernel until the connection ends."""
    while True:
        try:
            await pyfuse3.main(1, 1)
        except* OSError as group:
            if any(error.errno != errno.EAGAIN for error in _leaves(group)):
                raise
        else:
            return


def _leaves(group: BaseExceptionGroup[OSError]) -> list[OSError]:
    found: list[OSError] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found

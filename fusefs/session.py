"""The pyfuse3 session of a worker: replay of INIT, then service of the real device.

libfuse answers nothing before it has seen INIT, and the kernel sends INIT once. So the session
starts on a socket pair, is fed the recorded request there, and its reply goes to the kernel the
first time and is compared with the first reply ever after. Then the real device takes the socket's
descriptor number and libfuse never notices; or requests go on through the socket pair (`gate`).
"""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Final

import attrs
import pyfuse3
import trio

from fusefs import initmsg
from fusefs.gate import Gate, JournaledGate
from fusefs.journal import Journal
from fusefs.pace import Pace

log = logging.getLogger(__name__)

_REPLY_BYTES: Final = 65536
_HANDSHAKE_S: Final = 5.0
_started = False


class InitMismatch(Exception):
    """This worker would negotiate other things than the first one did; it must not serve."""


@attrs.frozen
class Started:
    """A session that has seen INIT and nothing else.

    Attributes:
        number: The descriptor that it reads.
        reply: Its reply to INIT, as the kernel gets it.
        relay: The other end of that descriptor.
    """

    number: int
    reply: bytes
    relay: socket.socket

    def check(self, first_reply: bytes | None) -> None:
        """Compare with what the first worker of the volume replied, None when this is that one.

        Raises:
            InitMismatch: This session would speak otherwise than the kernel was told.
        """
        if first_reply is not None and self.reply != first_reply:
            raise InitMismatch


async def handshake(
    operations: pyfuse3.Operations, request: bytes, *, user_namespace: bool = False
) -> Started:
    """Start the session of this process and feed it INIT.

    Args:
        operations: What answers.
        request: INIT as the kernel sent it.
        user_namespace: Let the mount's ids be mapped to those of a pod's user namespace.

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
    ours.settimeout(0)
    pyfuse3.init(operations, f"/dev/fd/{number}", set())
    with trio.fail_after(_HANDSHAKE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pyfuse3.main, 1, 1)
            ours.send(request)
            await trio.lowlevel.wait_readable(ours)
            reply = ours.recv(_REPLY_BYTES)
            nursery.cancel_scope.cancel()
    offered = initmsg.offered_flags(request)
    relayed = initmsg.relayed(reply, offered, user_namespace=user_namespace)
    return Started(number, relayed, ours)


def direct(started: Started, device: int, pace: Pace, answered: Callable[[], None]) -> Gate:
    """Put `device` where the session reads; it is closed. `answered` as in `Gate`."""
    # Readiness may be stale (a request can be withdrawn), and a blocking read would stop the loop.
    os.set_blocking(device, False)
    os.dup2(device, started.number, inheritable=False)
    os.close(device)
    started.relay.close()
    return Gate(started.number, pace, answered)


def journaled(
    started: Started, device: int, pace: Pace, answered: Callable[[], None], *, journal: Journal
) -> Gate:
    """Have requests of `device` noted down and relayed to the session."""
    return JournaledGate(device, pace, answered, relay=started.relay, journal=journal)


def answer_init(device: int, reply: bytes) -> None:
    """Answer the kernel's INIT."""
    # ENOENT: a predecessor answered and died before it could say so.
    with contextlib.suppress(FileNotFoundError):
        os.write(device, reply)


async def serve(gate: Gate) -> None:
    """Answer the kernel until the connection ends or the gate is closed."""
    gate.open()
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

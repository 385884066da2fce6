"""What stands between pyfuse3 and the device: how fast requests come in, and what is lost with us.

pyfuse3 waits for its device through its module attribute ``trio``, which its own asyncio mode
replaces too. A gate is put there: it is asked before each request, when the one before has been
answered, so that a worker can be slowed down and stopped between two requests.

Where the kernel can send a request again (FUSE RESEND), nothing has to be remembered. Elsewhere
each request is read into a journal in memory that outlives the worker, then handed to libfuse
through a socket pair; the successor answers what it finds there, and no reader sees an error.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Final

import pyfuse3
import trio
from typing_extensions import override

from fusefs import initmsg
from fusefs.journal import Journal
from fusefs.pace import Pace

_REPLY_BYTES: Final = 2 << 20
_FORGET: Final = 2
_INTERRUPT: Final = 36
_BATCH_FORGET: Final = 42
_UNANSWERED: Final = (_FORGET, _INTERRUPT, _BATCH_FORGET)


class Gate:
    """Lets requests through one by one, straight from the device.

    Attributes:
        device: The descriptor that requests are read from.
    """

    def __init__(
        self, device: int, pace: Pace, answered: Callable[[], None] = lambda: None
    ) -> None:
        """Let requests of `device` through at `pace`.

        `answered` is called whenever all that was let through has been answered.
        """
        self.device = device
        self._pace = pace
        self._answered = answered
        self._closed = False

    def open(self) -> None:
        """Make pyfuse3 ask here; there is one session, and so one gate, in a process."""
        lowlevel = SimpleNamespace(**vars(trio.lowlevel) | {"wait_readable": self.wait_readable})
        pyfuse3.trio = SimpleNamespace(**vars(trio) | {"lowlevel": lowlevel})  # type: ignore[attr-defined]

    def close(self) -> None:
        """Let nothing more through: pyfuse3's loop ends, and no request is lost with it."""
        self._closed = True
        trio.lowlevel.notify_closing(self.device)

    def reopen(self) -> None:
        """Let requests through again, once pyfuse3's loop has ended."""
        self._closed = False

    def recover(self) -> None:
        """Have the requests answered that a worker before took, and died with."""
        os.write(self.device, initmsg.resend())

    def invalidate(self, node: int) -> bool:
        """Make the kernel ask again for a node's attributes; return whether it knows the node.

        Attributes only: any other notification from the serving thread can deadlock.
        """
        try:
            os.write(self.device, initmsg.invalidate_attributes(node))
        except FileNotFoundError:
            return False
        return True

    async def wait_readable(self, _number: int) -> None:
        """Return when a request may be read.

        Raises:
            trio.ClosedResourceError: The gate is closed, or the connection has ended.
        """
        self._answered()
        await self._wait_for_turn()
        await trio.lowlevel.wait_readable(self.device)

    async def _wait_for_turn(self) -> None:
        while delay_s := self._pace.delay_s():  # noqa: ASYNC110 - time is what is waited for
            await trio.sleep(delay_s)
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            message = "no request is let through any more"
            raise trio.ClosedResourceError(message)


class JournaledGate(Gate):
    """Lets requests through a socket pair, each of them noted down while it is in work."""

    def __init__(
        self,
        device: int,
        pace: Pace,
        answered: Callable[[], None] = lambda: None,
        *,
        relay: socket.socket,
        journal: Journal,
    ) -> None:
        """Read requests from `device` and have them answered at the other end of `relay`."""
        super().__init__(device, pace, answered)
        os.set_blocking(device, False)
        relay.settimeout(0)
        self._relay = relay
        self._journal = journal
        self._recovering = True  # who was told to recover may have been stopped before it did
        self._working = False
        self._rest = bytearray(initmsg.READ_BUFFER_BYTES)  # what a journal has no room for

    @override
    def recover(self) -> None:
        self._recovering = True
        trio.lowlevel.notify_closing(self.device)  # wakes, see below

    @override
    async def wait_readable(self, _number: int) -> None:
        self._pass_on_replies()
        self._answered()
        await self._wait_for_turn()
        while not (self._recovering and self._pass_on_lost()):
            self._recovering = False
            with contextlib.suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(self.device)
                if self._pass_on_request():
                    return
            self._check_open()
        await trio.lowlevel.checkpoint()

    def _pass_on_request(self) -> bool:
        try:
            length = os.readv(self.device, [self._journal.own, self._rest])
        except OSError as error:
            self._journal.clear()  # half of a request may have been written
            if error.errno == errno.ENODEV:
                self._closed = True
            elif error.errno not in (errno.EAGAIN, errno.EINTR, errno.ENOENT):
                raise
            return False  # somebody else took it, or whoever asked has been killed
        beyond = memoryview(self._rest)[: max(0, length - len(self._journal.own))]
        self._work_on(bytes(self._journal.own[:length]) + beyond)
        return True

    def _pass_on_lost(self) -> bool:
        """Pass on one request that a worker before did not answer, if there is one."""
        while (request := self._journal.take_lost()) is not None:
            if len(request) < initmsg.IN_HEADER.size:  # no kernel wrote that
                self._journal.clear()
                continue
            length, opcode, unique, *_ = initmsg.IN_HEADER.unpack_from(request)
            if opcode in _UNANSWERED:  # counting it twice would be worse than not at all
                self._journal.clear()
            elif length > len(request):  # did not fit; no request of a reader is that long
                self._answer(initmsg.error(unique, errno.EINTR))
                self._journal.clear()
            else:
                self._work_on(request)
                return True
        return False

    def _work_on(self, request: bytes) -> None:
        self._relay.send(request)
        self._working = True

    def _pass_on_replies(self) -> None:
        """Pass on what the last request was answered; an interrupt may have got an answer too."""
        with contextlib.suppress(BlockingIOError):
            while self._working:
                self._answer(self._relay.recv(_REPLY_BYTES))
        if self._working:
            self._journal.clear()
            self._working = False

    def _answer(self, reply: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):  # whoever asked has been killed
            os.write(self.device, reply)

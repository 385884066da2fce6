"""A worker as the keeper sees it: a pid, a socket, and the news of its end."""

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence

from fusefs import children, packets, protocol, worker
from fusefs.errors import InvalidMessage
from fusefs.loop import Loop

log = logging.getLogger(__name__)


class WorkerProcess:
    """A running worker; watched by the keeper's loop until it has been reaped."""

    def __init__(
        self,
        loop: Loop,
        prepare: Callable[[socket.socket], worker.Assignment],
        spoke: Callable[[protocol.FromWorker], None],
        ended: Callable[[int, float], None],
    ) -> None:
        """Fork the worker.

        Args:
            loop: The keeper's loop.
            prepare: Returns the assignment, given the worker's end of the control socket.
            spoke: Called with each message of the worker.
            ended: Called once with exit code (negative: signal) and seconds lived.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(ours.close)
            assignment = prepare(theirs)
            self.pid = children.fork(lambda: worker.run(assignment))
            undo.pop_all()
        self._loop = loop
        self._spoke = spoke
        self._ended = ended
        self._started = time.monotonic()
        self._reaped = False
        ours.settimeout(0)
        self._control: socket.socket | None = ours
        loop.watch(ours.fileno(), self._read)
        loop.watch_child(self.pid, self._on_reaped)

    def tell(self, message: protocol.Message, descriptors: Sequence[int] = ()) -> None:
        """Send; a worker that does not listen is killed, and its successor learns it all anew."""
        if self._control is None:
            return
        try:
            packets.send(self._control, message, descriptors)
        except (ConnectionError, BlockingIOError) as error:
            log.warning("worker %d does not listen: %s", self.pid, error)
            self.kill()

    def kill(self) -> None:
        """End the worker; the news comes as of any other end. One that has ended is left alone."""
        if not self._reaped:
            os.kill(self.pid, signal.SIGKILL)

    def abandon(self, gone: Callable[[], None]) -> None:
        """Kill the worker, hear nothing more of it, and call `gone` once it is reaped."""
        self._spoke = lambda _: None
        self._ended = lambda _code, _lived: gone()
        self._close_control()
        self.kill()
        if self._reaped:
            gone()

    def _read(self) -> None:
        """Take one message; a worker that speaks otherwise, or no longer, is of no use."""
        assert self._control is not None  # noqa: S101 - watched only while it is open
        try:
            received = packets.receive(
                self._control, protocol.FROM_WORKER, max_body=packets.INLINE_BYTES
            )
        except (ConnectionError, InvalidMessage) as error:
            log.warning("worker %d is given up: %s", self.pid, error)
            received = None
        if received is None:
            self._close_control()
            self.kill()
            return
        message, descriptors = received
        for descriptor in descriptors:
            os.close(descriptor)
        self._spoke(message)

    def _on_reaped(self, code: int) -> None:
        self._reaped = True
        try:
            while self._control is not None:  # what it said before it ended
                self._read()
        finally:
            self._ended(code, time.monotonic() - self._started)

    def _close_control(self) -> None:
        if self._control is not None:
            self._loop.unwatch(self._control.fileno())
            self._control.close()
            self._control = None

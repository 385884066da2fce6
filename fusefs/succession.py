"""Who serves a volume: its worker, and whoever comes after it.

The volume's state machine says that a worker is needed; this is how there comes to be one.
"""

import functools
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from fusefs import protocol, sandbox, worker
from fusefs.loop import Loop, Timer
from fusefs.workerprocess import WorkerProcess

log = logging.getLogger(__name__)

READY_DEADLINE_S: Final = 10.0


@attrs.frozen(kw_only=True)
class Listener:
    """What the owner of a succession wants to hear.

    Attributes:
        ready: A worker answers the kernel; its reply to INIT.
        spoke: A worker said something else.
        ended: The worker has ended, after so many seconds.
    """

    ready: Callable[[bytes], None]
    spoke: Callable[[protocol.FromWorker], None]
    ended: Callable[[float], None]


class Succession:
    """The worker of one volume, one after another."""

    def __init__(
        self,
        loop: Loop,
        assign: Callable[[socket.socket, int], worker.Assignment],
        listener: Listener,
        *,
        volume_id: str,
    ) -> None:
        """Start with no worker.

        Args:
            loop: The keeper's loop.
            assign: Returns what a worker forked now is to serve, given its end of the control
                socket and the directory that it is confined to.
            listener: Hears what becomes of the workers.
            volume_id: For the log.
        """
        self._loop = loop
        self._assign = assign
        self._listener = listener
        self._fields = {"volume_id": volume_id}
        self._worker: WorkerProcess | None = None
        self._ready = False
        self._deadline: Timer | None = None

    @property
    def pid(self) -> int | None:
        """The worker, None while it is being replaced."""
        return self._worker.pid if self._worker else None

    def start(self) -> None:
        """Fork a worker.

        Raises:
            OSError: The node does not let it be.
        """
        root = sandbox.empty_root()
        try:
            started = WorkerProcess(
                self._loop,
                functools.partial(self._assign_with, root),
                self._spoke,
                self._ended,
            )
        finally:
            os.close(root)
        self._worker = started
        self._ready = False
        self._deadline = self._loop.call_later(READY_DEADLINE_S, self._expect_ready)

    def tell(self, message: protocol.Message, descriptors: Sequence[int] = ()) -> None:
        """Tell the worker; one that is forked later knows all of it from its assignment."""
        if self._worker is not None:
            self._worker.tell(message, descriptors)

    def abandon(self, gone: Callable[[], None]) -> None:
        """Have no worker any more, and call `gone` once the last one is reaped."""
        self._forget_deadline()
        last, self._worker = self._worker, None
        if last is None:
            gone()
        else:
            last.abandon(gone)

    def _assign_with(self, root: int, control: socket.socket) -> worker.Assignment:
        return self._assign(control, root)

    def _expect_ready(self) -> None:
        if self._worker is not None and not self._ready:
            log.error("the worker is not ready in time; it is replaced", extra=self._fields)
            self._worker.kill()

    def _spoke(self, message: protocol.FromWorker) -> None:
        match message:
            case protocol.Ready(reply=reply):
                self._ready = True
                self._forget_deadline()
                self._listener.ready(reply)
            case _:
                self._listener.spoke(message)

    def _ended(self, code: int, lived_s: float) -> None:
        log.warning("the worker ended with %d after %.1f s", code, lived_s, extra=self._fields)
        self._forget_deadline()
        self._worker = None
        self._listener.ended(lived_s)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

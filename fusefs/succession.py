"""Who serves a volume: its worker, and whoever comes after it.

The volume's state machine says that a worker is needed; this is how there comes to be one, how it
is noticed that it serves no longer, and how it is asked to make room for the worker of another
keeper.
"""

import functools
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from fusefs import protocol, sandbox, watchdog, worker
from fusefs.loop import Loop, Timer
from fusefs.watchdog import Watchdog
from fusefs.workerprocess import WorkerProcess

log = logging.getLogger(__name__)

READY_DEADLINE_S: Final = 10.0
REAP_S: Final = 0.3  # a killed worker that lives longer is stuck in the kernel
HOPE_S: Final = 120.0  # without a worker that serves; a pod whose reader hangs cannot be deleted
HOPE_STEP_S: Final = 10.0  # a keeper that did not run for a while counts no more of it than this
STOP_S: Final = 2.0  # to finish what was taken, which takes a healthy worker no time


@attrs.frozen(kw_only=True)
class Listener:
    """What the owner of a succession wants to hear.

    Attributes:
        ready: A worker answers the kernel; its reply to INIT.
        spoke: A worker said something else.
        ended: The worker has ended, after so many seconds of service, or of life without any.
        hopeless: No worker has served for so long that readers must not wait any more.
        standing_by: A worker could serve and waits for `Succession.attach`.
        refused: A worker would speak otherwise than the kernel was told; `ended` follows.
        broken: A worker ended, like that, because what it should show is not what was sealed.
    """

    ready: Callable[[bytes], None]
    spoke: Callable[[protocol.FromWorker], None]
    ended: Callable[[float], None]
    broken: Callable[[float], None]
    hopeless: Callable[[], None]
    standing_by: Callable[[], None] = lambda: None
    refused: Callable[[], None] = lambda: None


class Succession:
    """The worker of one volume, one after another; two at a time while one cannot be killed."""

    def __init__(
        self,
        loop: Loop,
        assign: Callable[[socket.socket, int], worker.Assignment],
        listener: Listener,
        *,
        volume_id: str,
        standby: bool = False,
    ) -> None:
        """Start with no worker.

        Args:
            loop: The keeper's loop.
            assign: Returns what a worker forked now is to serve, given its end of the control
                socket and the directory that it is confined to.
            listener: Hears what becomes of the workers.
            volume_id: For the log.
            standby: Let workers wait until `attach`: another keeper's worker serves.
        """
        self._loop = loop
        self._assign = assign
        self._listener = listener
        self._fields = {"volume_id": volume_id}
        self._standby = standby
        self._stopped: Callable[[bool], None] | None = None
        self._worker: WorkerProcess | None = None
        self._serves_since: float | None = None
        self._watchdog = Watchdog(0.0)
        self._timer: Timer | None = None
        self._hope: Timer | None = None
        self._forked = 0
        self._stuck = 0
        self._gone: Callable[[], None] | None = None

    @property
    def pid(self) -> int | None:
        """The worker, None while it is being replaced."""
        return self._worker.pid if self._worker else None

    def start(self) -> None:
        """Fork a worker, unless there is one or the succession was stopped.

        Raises:
            OSError: The node does not let it be.
        """
        if self._worker is not None or self._stopped is not None:
            return
        if not self._standby:
            self._begin_hope()
        root = sandbox.empty_root()
        try:
            started = WorkerProcess(
                self._loop, functools.partial(self._assigned, root), self._spoke, self._ended
            )
        finally:
            os.close(root)
        self._worker = started
        self._serves_since = None
        self._forked += 1
        self._later(READY_DEADLINE_S, self._expect_ready)

    def tell(self, message: protocol.Message, descriptors: Sequence[int] = ()) -> None:
        """Tell the worker; one that is forked later knows all of it from its assignment."""
        if self._worker is not None:
            self._worker.tell(message, descriptors)

    def replace(self) -> None:
        """End the worker; the news comes as of any other end."""
        if self._worker is not None:
            self._kill(self._worker)

    def abandon(self, gone: Callable[[], None]) -> None:
        """Have no worker any more, and call `gone` once the last one is reaped."""
        self._gone = gone
        self._forget_timer()
        self._end_hope()
        last, self._worker = self._worker, None
        if last is not None:
            self._leave(last)
        elif not self._stuck:
            gone()

    # Handover

    def attach(self, *, recover: bool) -> None:
        """Let the worker that stands by serve, and those after it at once.

        With `recover`, it answers what the worker before it took and did not answer.
        """
        self._standby = False
        self._begin_hope()
        self.tell(protocol.Attach(recover))

    def stop(self, stopped: Callable[[bool], None]) -> None:
        """End the worker between two requests, and have none until `resume`.

        `stopped` is called with whether all that it had taken is answered.
        """
        self._stopped = stopped
        self._end_hope()
        if self._worker is None:
            nothing_lost = False  # who was to replace it would have answered
            stopped(nothing_lost)
            return
        self._later(STOP_S, functools.partial(self._kill, self._worker))
        self._worker.tell(protocol.Stop())

    def resume(self) -> None:
        """Let there be a worker again; `start` forks it."""
        self._stopped = None

    # The life of a worker

    def _assigned(self, root: int, control: socket.socket) -> worker.Assignment:
        assignment = self._assign(control, root)
        return attrs.evolve(assignment, number=self._forked, standby=self._standby)

    def _expect_ready(self) -> None:
        log.error("the worker is not ready in time; it is replaced", extra=self._fields)
        self.replace()

    def _spoke(self, message: protocol.FromWorker) -> None:
        match message:
            case protocol.Ready(reply=reply):
                self._serves_since = self._loop.now()
                self._end_hope()
                self._watch()
                self._listener.ready(reply)
            case protocol.Standby():
                self._watch()
                self._listener.standing_by()
            case protocol.Pong():
                self._watchdog.heard(self._loop.now())
            case _:
                self._listener.spoke(message)

    def _watch(self) -> None:
        if self._stopped is None:
            self._watchdog = Watchdog(self._loop.now())
            self._later(watchdog.PING_S, self._tick)

    def _tick(self) -> None:
        if self._watchdog.tick(self._loop.now()):
            log.error("the worker does not answer; it is replaced", extra=self._fields)
            self.replace()
        else:
            self._later(watchdog.PING_S, self._tick)
            self.tell(protocol.Ping())

    def _kill(self, one: WorkerProcess) -> None:
        self._later(REAP_S, functools.partial(self._give_up, one))
        one.kill()

    def _give_up(self, one: WorkerProcess) -> None:
        """Do without a worker that cannot be killed: its successor sets it free by serving."""
        if self._worker is one:
            log.error("the worker is stuck in the kernel; it gets company", extra=self._fields)
            self._leave(one)
            self._end(worker.EXIT_FAILED, watchdog.PATIENCE_S)

    def _leave(self, one: WorkerProcess) -> None:
        self._stuck += 1
        one.abandon(self._left)

    def _left(self) -> None:
        """Have answered what a worker had taken that is gone only now."""
        self._stuck -= 1
        self.tell(protocol.Recover())
        if self._gone is not None and not self._stuck:
            self._gone()

    def _ended(self, code: int, lived_s: float) -> None:
        level = logging.INFO if code == worker.EXIT_STOPPED else logging.WARNING
        log.log(level, "the worker ended with %d after %.1f s", code, lived_s, extra=self._fields)
        self._end(code, lived_s)

    def _end(self, code: int, lived_s: float) -> None:
        self._forget_timer()
        self._worker = None
        if self._serves_since is not None:
            lived_s = self._loop.now() - self._serves_since
        if self._stopped is not None:
            self._stopped(code == worker.EXIT_STOPPED)
            return
        if code == worker.EXIT_MISMATCH:
            log.error(
                "this keeper cannot serve a volume that another one mounted: its FUSE library "
                "negotiates other options; go back to the version before",
                extra=self._fields,
            )
            self._listener.refused()
        if code == worker.EXIT_BROKEN:
            self._listener.broken(lived_s)
        else:
            self._listener.ended(lived_s)

    def _begin_hope(self) -> None:
        if self._hope is None:
            self._hope_for(HOPE_S)

    def _hope_for(self, seconds: float) -> None:
        if seconds > 0:
            rest = functools.partial(self._hope_for, seconds - HOPE_STEP_S)
            self._hope = self._loop.call_later(HOPE_STEP_S, rest)
        else:
            self._despair()

    def _despair(self) -> None:
        log.error("no worker has served for %d s; readers get ENOTCONN", HOPE_S, extra=self._fields)
        self._listener.hopeless()

    def _end_hope(self) -> None:
        if self._hope is not None:
            self._hope.cancel()
            self._hope = None

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Have one timer at a time: what comes next replaces what was awaited."""
        self._forget_timer()
        self._timer = self._loop.call_later(seconds, callback)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

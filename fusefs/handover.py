"""The side of the keeper that serves while a successor takes everything over.

::

    successor                      this keeper
    TakeOver(rank)          --->   hears no commands any more, lets what is under way end
                            <---   Hold, HoldGeneration of each volume; Done
    StandingBy              --->   stops each worker between two requests
                            <---   Stopped of each volume, so that the successor's serves it; Done
    Committed               --->   releases the lease and ends

Until Committed everything can be taken back: the successor is killed, since a worker of it that
serves on would answer from old content, the workers are forked again, and the node server comes
back by itself.
"""

import contextlib
import functools
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs

from fusefs import effects, protocol
from fusefs.errors import InvalidMessage, Superseded, VolumeFailed
from fusefs.loop import Loop, Timer

log = logging.getLogger(__name__)

DRAIN_S: Final = 5.0  # for what a node server still waits for
COMMIT_S: Final = 10.0  # from then on, and a little for each volume
COMMIT_EACH_S: Final = 0.1
AT_ONCE: Final = 4  # workers that are told to stop and have not
_POLL_S: Final = 0.01
_NOBODY: Final = 0  # numbers of sessions count from 1


class Host(Protocol):
    """A volume that is handed over."""

    volume_id: str

    def holdings(self) -> list[tuple[protocol.KeeperNotice, tuple[int, ...]]]:
        """Return what tells all that is to be held of the volume, with the descriptors."""
        ...

    def stop_serving(self, stopped: Callable[[bool], None]) -> None:
        """End the worker; `stopped` is called with whether all that it had taken is answered."""
        ...

    def serve_again(self) -> None:
        """Have a worker again."""
        ...


@attrs.frozen(kw_only=True)
class Estate:
    """What a handover asks of its keeper.

    Attributes:
        volumes: Returns those that are to be handed over.
        at_rest: Whether nothing is under way that somebody waits for.
        begin: Accepts no connections any more.
        close: Hangs up on everybody but this session.
        process: Returns the process at the other end of a session.
        send: Sends to a session.
        resume: Hears node servers again.
        leave: Ends the keeper: everything has been handed over.
    """

    volumes: Callable[[], Sequence[Host]]
    at_rest: Callable[[], bool]
    begin: Callable[[], None]
    close: Callable[[int], None]
    process: Callable[[int], int]
    send: Callable[[int, protocol.Message, tuple[int, ...]], None]
    resume: Callable[[], None]
    leave: Callable[[], None]


class Handover:
    """One at a time.

    Attributes:
        successor: The session that everything goes to, None while nobody takes over.
    """

    def __init__(self, loop: Loop, estate: Estate, rank: int) -> None:
        """Wait for a successor that is not older than `rank`."""
        self._loop = loop
        self._estate = estate
        self._rank = rank
        self.successor: int | None = None
        self._deadline: Timer | None = None
        self._running: list[Host] = []
        self._to_stop: deque[Host] = deque()
        self._stopping = 0
        self._stopped: list[Host] = []
        self._all_stopped: protocol.Done | None = None
        self._process = -1  # a pidfd of the successor

    def hear(self, ticket: effects.Ticket, message: protocol.SuccessorMessage) -> None:
        """Go on with the handover.

        Raises:
            KeeperError: Not now, or not by this session.
        """
        match message:
            case protocol.TakeOver():
                self._begin(ticket, message)
            case _ if ticket.session != self.successor:
                text = "take over first"
                raise Superseded(text)
            case protocol.StandingBy():
                self._stop_workers(ticket)
            case protocol.Committed():
                self._leave()

    def close(self) -> None:
        """Let go of the successor's process."""
        if self._process >= 0:
            os.close(self._process)
            self._process = -1

    def gone(self, session: int) -> None:
        """Take everything back if it was the successor that has left."""
        if session == self.successor:
            log.warning("the successor has left; this keeper serves on")
            self._take_back()

    def _begin(self, ticket: effects.Ticket, message: protocol.TakeOver) -> None:
        if message.major != protocol.MAJOR:
            text = f"this keeper speaks version {protocol.MAJOR} of the control messages"
            raise InvalidMessage(text)
        if message.rank < self._rank:
            text = "the keeper that serves was started later; wait for the lease"
            raise Superseded(text)
        if self.successor is not None:
            text = "another keeper takes over; wait for the lease"
            raise VolumeFailed(text)
        log.info("a successor takes over")
        self._process = self._open_process(ticket.session)
        self.successor = ticket.session
        self._estate.begin()
        self._wait_for_rest(ticket, self._loop.now() + DRAIN_S)

    def _open_process(self, session: int) -> int:
        """Return a descriptor of the successor, by which it can be killed."""
        try:
            return os.pidfd_open(self._estate.process(session))
        except OSError as error:  # no process: another PID namespace
            text = "the process that takes over is not seen here; run keepers with hostPID: true"
            raise VolumeFailed(text) from error

    def _wait_for_rest(self, ticket: effects.Ticket, until: float) -> None:
        if self.successor != ticket.session:
            return
        if not self._estate.at_rest() and self._loop.now() < until:
            self._loop.call_later(_POLL_S, lambda: self._wait_for_rest(ticket, until))
            return
        self._estate.close(ticket.session)
        self._running = list(self._estate.volumes())
        seconds = COMMIT_S + COMMIT_EACH_S * len(self._running)
        self._deadline = self._loop.call_later(seconds, self._give_up)
        for host in self._running:
            for notice, descriptors in host.holdings():
                self._estate.send(ticket.session, notice, descriptors)
        self._estate.send(ticket.session, protocol.Done(ticket.request), ())

    def _stop_workers(self, ticket: effects.Ticket) -> None:
        """Stop a few workers at a time, so that each volume is without one for a moment only."""
        self._to_stop = deque(self._running)
        self._stopping = 0
        self._stopped.clear()
        self._all_stopped = protocol.Done(ticket.request)
        self._stop_next(ticket.session)

    def _stop_next(self, session: int) -> None:
        while self._to_stop and self._stopping < AT_ONCE:
            host = self._to_stop.popleft()
            self._stopped.append(host)
            self._stopping += 1
            host.stop_serving(functools.partial(self._worker_stopped, session, host.volume_id))
        if self._all_stopped is not None and not self._to_stop and not self._stopping:
            done, self._all_stopped = self._all_stopped, None
            self._estate.send(session, done, ())

    def _worker_stopped(self, session: int, volume_id: str, answered: bool) -> None:  # noqa: FBT001 - a callback
        if session == self.successor:
            self._stopping -= 1
            self._estate.send(session, protocol.Stopped(volume_id, answered), ())
            self._stop_next(session)

    def _leave(self) -> None:
        log.info("everything has been handed over")
        if self._deadline is not None:
            self._deadline.cancel()
        self.successor = _NOBODY  # it hangs up now, which is no loss
        self._estate.leave()

    def _give_up(self) -> None:
        log.error("the successor has not taken over in time; this keeper serves on")
        self._take_back()

    def _take_back(self) -> None:
        """Serve again, once the successor is no more."""
        if self._deadline is not None:
            self._deadline.cancel()
        self.successor = None
        self._estate.close(0)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        self._loop.watch(self._process, self._serve_again)

    def _serve_again(self) -> None:
        self._loop.unwatch(self._process)
        self.close()
        stopped, self._stopped, self._running = self._stopped, [], []
        for host in stopped:
            host.serve_again()
        self._estate.resume()

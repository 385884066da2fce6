"""From the start of a keeper to its end: the lease, the keeper before and after it, signals.

Of all keepers of a node one serves: the one that holds the lease. One that starts takes everything
over from it, or waits. One that is asked to end serves on until a successor has taken everything;
without a successor it leaves the volumes readable as they are then.
"""

import contextlib
import functools
import logging
import os
import signal
from pathlib import Path
from typing import Final

from fusefs import effects, protocol, readyfile
from fusefs.config import Config
from fusefs.errors import VolumeFailed
from fusefs.handover import Estate, Handover
from fusefs.inheritance import Heir, Inheritance
from fusefs.lease import Lease
from fusefs.listener import Listener
from fusefs.loop import Loop
from fusefs.sessions import Session, Sessions
from fusefs.supervisor import EXIT_HANDED_OVER
from fusefs.volumes import Volumes

log = logging.getLogger(__name__)

EXIT_FAILED: Final = 1
_POLL_S: Final = 0.1


class Lifecycle:
    """What a keeper is at the moment: waiting, serving, ending."""

    def __init__(self, config: Config, loop: Loop, volumes: Volumes, sessions: Sessions) -> None:
        """Prepare; `run` does the work."""
        self._config = config
        self._loop = loop
        self._volumes = volumes
        self._listener = Listener(config.socket, sessions.add)
        self._exit_code = 0
        self._serves = False
        self._ending = False
        self._ready = contextlib.ExitStack()
        estate = Estate(
            volumes=volumes.held,
            at_rest=volumes.at_rest,
            begin=lambda: self._listener.pause(loop),
            close=sessions.close_all_but,
            process=sessions.process,
            send=sessions.send,
            resume=lambda: self._listener.resume(loop),
            leave=lambda: self._end(EXIT_HANDED_OVER),
        )
        self._handover = Handover(loop, estate, config.rank)

    def run(self) -> int:
        """Serve, once there is nobody else who does, until the end; return the exit code."""
        lease = Lease(str(Path(self._config.socket).parent))
        heir = Heir(
            adopt=self._volumes.adopt,
            serve=self._serve,
            fail=lambda: self._end(EXIT_FAILED),
        )
        self._handle_signals()
        config = self._config
        Inheritance(self._loop, lease, config.socket, config.rank, heir).begin()
        try:
            with self._ready:
                self._loop.run()
        finally:
            self._handover.close()
            self._listener.close()
            lease.close()
        return self._exit_code

    def is_deaf_to(self, session: Session) -> bool:
        """Return whether nothing of this session is heard any more: a successor takes over."""
        return self._handover.successor not in (None, session.number)

    def hear(self, ticket: effects.Ticket, message: protocol.SuccessorMessage) -> None:
        """Go on with handing over.

        Raises:
            KeeperError: Not now, or not by this session.
        """
        if self._volumes.freezes:
            text = "the keeper that serves freezes its volumes and ends; wait for the lease"
            raise VolumeFailed(text)
        self._handover.hear(ticket, message)

    def gone(self, session: Session) -> None:
        """Take note that a session has ended."""
        self._handover.gone(session.number)

    def _serve(self) -> None:
        self._serves = True
        self._listener.start(self._loop)
        self._ready.enter_context(readyfile.shown(self._config.ready_file))
        log.info("the keeper serves", extra={"socket": self._config.socket})

    def _end(self, code: int) -> None:
        self._exit_code = code
        self._loop.stop()

    def _handle_signals(self) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        self._loop.watch(reading, functools.partial(self._signalled, reading))

    def _signalled(self, reading: int) -> None:
        if signal.SIGUSR1 in os.read(reading, 64):
            self._freeze()
        elif not self._serves:
            self._end(0)
        elif not self._ending:
            self._ending = True
            patience = self._config.successor_patience
            log.info("ending: waiting for a successor for %.0f s", patience)
            self._loop.call_later(patience, self._freeze)
            self._end_if_empty()

    def _freeze(self) -> None:
        if self._handover.successor is None:
            self._volumes.freeze(self._loop.stop)
        else:  # which may leave before it has taken everything
            self._loop.call_later(_POLL_S, self._freeze)

    def _end_if_empty(self) -> None:
        if self._volumes:
            self._loop.call_later(_POLL_S, self._end_if_empty)
        else:
            self._end(0)

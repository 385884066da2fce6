"""Connections to the control socket: who speaks, who is obeyed, and what they are told.

The keeper never waits for a session: what its socket does not take is queued, and as long as
something is queued nothing more is read from it. One that takes nothing for a while is closed.
"""

import functools
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from fusefs import packets, protocol
from fusefs.errors import InvalidMessage
from fusefs.loop import Loop, Timer

log = logging.getLogger(__name__)

DEAF_S: Final = 10.0
PEER: Final = struct.Struct("=3i")  # struct ucred: pid, uid, gid

Heard = Callable[["Session", protocol.NodeMessage, list[int]], None]


@attrs.define(eq=False)
class Session:
    """One connection; numbers follow the order of arrival."""

    number: int
    connection: socket.socket
    queue: deque[tuple[protocol.Message, list[int]]] = attrs.field(factory=deque, repr=False)
    deadline: Timer | None = attrs.field(default=None, repr=False)


class Sessions:
    """All connections. One that breaks the protocol, or does not listen, is closed.

    Attributes:
        obeyed: The number of the session whose commands are carried out; 0 before there is one.
    """

    def __init__(
        self, loop: Loop, heard: Heard, gone: Callable[[Session], None] = lambda _: None
    ) -> None:
        """Call `heard` with each message; its descriptors belong to who is called.

        `gone` is called when a session has ended.
        """
        self._loop = loop
        self._heard = heard
        self._gone = gone
        self._sessions: dict[int, Session] = {}
        self.obeyed = 0

    def add(self, number: int, connection: socket.socket) -> None:
        """Take in a connection."""
        session = Session(number, connection)
        self._sessions[number] = session
        self._loop.watch(connection.fileno(), functools.partial(self._read, session))

    def obey(self, session: Session) -> bool:
        """Carry out the commands of `session` from now on; False when a newer one is obeyed."""
        if session.number < self.obeyed:
            return False
        self.obeyed = session.number
        return True

    def announce(self, message: protocol.KeeperNotice, descriptors: tuple[int, ...] = ()) -> None:
        """Tell the session that is obeyed, if it is there."""
        self.send(self.obeyed, message, descriptors)

    def send(self, number: int, message: protocol.Message, descriptors: tuple[int, ...]) -> None:
        """Send to a session; one that is gone asked and left."""
        session = self._sessions.get(number)
        if session is None:
            return
        if session.queue or not self._sent(session, message, descriptors):
            self._enqueue(session, message, descriptors)

    def process(self, number: int) -> int:
        """Return the process at the other end of a session."""
        connection = self._sessions[number].connection
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
        pid: int = PEER.unpack(found)[0]
        return pid

    def close_all_but(self, number: int) -> None:
        """Hang up on everybody else: who comes back finds whoever serves then."""
        for session in list(self._sessions.values()):
            if session.number != number:
                self._drop(session)

    def _sent(
        self, session: Session, message: protocol.Message, descriptors: tuple[int, ...]
    ) -> bool:
        """Return whether nothing is left to do for this message."""
        try:
            packets.send(session.connection, message, descriptors)
        except BlockingIOError:
            return False
        except ConnectionError as error:
            log.warning("a session does not listen and is closed: %s", error)
            self._drop(session)
        return True

    def _enqueue(
        self, session: Session, message: protocol.Message, descriptors: tuple[int, ...]
    ) -> None:
        if not session.queue:
            number = session.connection.fileno()
            self._loop.unwatch(number)
            self._loop.watch(number, functools.partial(self._flush, session), writable=True)
            self._expect_progress(session)
        session.queue.append((message, [os.dup(descriptor) for descriptor in descriptors]))

    def _flush(self, session: Session) -> None:
        while session.queue:
            message, descriptors = session.queue[0]
            if not self._sent(session, message, tuple(descriptors)):
                self._expect_progress(session)
                return
            if session.number not in self._sessions:
                return
            session.queue.popleft()
            _close(descriptors)
        if session.deadline is not None:
            session.deadline.cancel()
        number = session.connection.fileno()
        self._loop.unwatch(number)
        self._loop.watch(number, functools.partial(self._read, session))

    def _expect_progress(self, session: Session) -> None:
        """Close a session that takes nothing for a while."""
        if session.deadline is not None:
            session.deadline.cancel()
        session.deadline = self._loop.call_later(DEAF_S, functools.partial(self._give_up, session))

    def _give_up(self, session: Session) -> None:
        log.warning("a session takes nothing for %.0f s and is closed", DEAF_S)
        self._drop(session)

    def _read(self, session: Session) -> None:
        try:
            received = packets.receive(session.connection, protocol.AT_KEEPER)
        except (ConnectionError, InvalidMessage) as error:
            log.warning("a session is closed: %s", error)
            received = None
        if received is None:
            self._drop(session)
        else:
            self._heard(session, *received)

    def _drop(self, session: Session) -> None:
        del self._sessions[session.number]
        if session.deadline is not None:
            session.deadline.cancel()
        self._loop.unwatch(session.connection.fileno())
        session.connection.close()
        while session.queue:
            _close(session.queue.popleft()[1])
        self._gone(session)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

"""Connections to the control socket: who speaks, and what they are told."""

import functools
import logging
import socket
from collections.abc import Callable

import attrs

from fusefs import protocol
from fusefs.errors import InvalidMessage
from fusefs.loop import Loop

log = logging.getLogger(__name__)

Heard = Callable[["Session", protocol.NodeMessage, list[int]], None]


@attrs.frozen
class Session:
    """One connection; numbers follow the order of arrival."""

    number: int
    connection: socket.socket


class Sessions:
    """All connections. One that breaks the protocol, or does not listen, is closed."""

    def __init__(self, loop: Loop, heard: Heard) -> None:
        """Call `heard` with each message; its descriptors belong to who is called."""
        self._loop = loop
        self._heard = heard
        self._sessions: dict[int, Session] = {}

    def add(self, number: int, connection: socket.socket) -> None:
        """Take in a connection."""
        session = Session(number, connection)
        self._sessions[number] = session
        self._loop.watch(connection.fileno(), functools.partial(self._read, session))

    def send(self, number: int, message: protocol.Message, descriptors: tuple[int, ...]) -> None:
        """Send to a session; one that is gone asked and left."""
        session = self._sessions.get(number)
        if session is None:
            return
        try:
            protocol.send(session.connection, message, descriptors)
        except (ConnectionError, BlockingIOError) as error:
            log.warning("a session does not listen and is closed: %s", error)
            self._drop(session)

    def _read(self, session: Session) -> None:
        try:
            received = protocol.receive(session.connection, protocol.AT_KEEPER)
        except (ConnectionError, InvalidMessage) as error:
            log.warning("a session is closed: %s", error)
            received = None
        if received is None:
            self._drop(session)
        else:
            self._heard(session, *received)

    def _drop(self, session: Session) -> None:
        del self._sessions[session.number]
        self._loop.unwatch(session.connection.fileno())
        session.connection.close()

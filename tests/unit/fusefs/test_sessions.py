"""Connections to the control socket: who is obeyed, what waits, who is hung up on."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from fusefs import packets, protocol, sessions
from fusefs.loop import Loop
from fusefs.sessions import Session, Sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORD = b"r" * 30_000


class Hub:
    """Sessions, and what they heard."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.heard: list[tuple[int, protocol.NodeMessage]] = []
        self.gone: list[int] = []
        self.sessions = Sessions(self.loop, self._heard, lambda one: self.gone.append(one.number))
        self.peers: list[socket.socket] = []

    def _heard(
        self, session: Session, message: protocol.NodeMessage, descriptors: list[int]
    ) -> None:
        self.heard.append((session.number, message))
        for fd in descriptors:
            os.close(fd)

    def connect(self) -> socket.socket:
        """Return the other end of a new session."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        theirs.settimeout(0)
        self.peers.append(theirs)
        self.sessions.add(len(self.peers), ours)
        return theirs

    def run(self, until: Callable[[], object]) -> None:
        """Let the loop run until something holds."""
        deadline = self.loop.call_later(10, lambda: pytest.fail("it does not happen"))
        while not until():
            self.loop.call_later(0.002, self.loop.stop)
            self.loop.run()
        deadline.cancel()

    def close(self) -> None:
        """End all sessions."""
        self.sessions.close_all_but(0)
        for peer in self.peers:
            peer.close()
        self.loop.close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Return sessions without any; nothing of them is left open (conftest)."""
    made = Hub()
    yield made
    made.close()


def test_what_does_not_fit_waits_in_order(hub: Hub) -> None:
    """A peer that is slow gets everything, with its descriptors, and is heard again then."""
    peer = hub.connect()
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    for number in range(100):
        hub.sessions.send(1, protocol.Refused(number, "x", "t" * 10_000), (fd,))
    os.close(fd)
    packets.send(peer, protocol.ListVolumes(1))
    got: list[int] = []

    def read() -> bool:
        assert not hub.heard or len(got) > 50  # the rest is in the socket by then
        try:
            received = packets.receive(peer, protocol.AT_NODE)
        except BlockingIOError:
            return len(got) == 100 and bool(hub.heard)
        assert received is not None
        message, descriptors = received
        assert isinstance(message, protocol.Refused)
        assert len(descriptors) == 1
        os.close(descriptors[0])
        got.append(message.request)
        return False

    hub.run(read)
    assert got == list(range(100))
    assert hub.heard == [(1, protocol.ListVolumes(1))]


def test_peer_that_takes_nothing_is_closed(
    hub: Hub, announced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for it is let go with it."""
    announced.append("takes nothing for 0 s and is closed")
    monkeypatch.setattr(sessions, "DEAF_S", 0.05)
    hub.connect()
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    for number in range(100):
        hub.sessions.send(1, protocol.Refused(number, "x", "t" * 10_000), (fd,))
    os.close(fd)
    hub.run(lambda: hub.gone == [1])


def test_slow_peer_is_not_closed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it takes something it is waited for."""
    monkeypatch.setattr(sessions, "DEAF_S", 0.2)
    peer = hub.connect()
    for number in range(60):
        hub.sessions.send(1, protocol.Refused(number, "x", "t" * 30_000), ())
    left = 60

    def take_one_later() -> None:
        nonlocal left
        assert packets.receive(peer, protocol.AT_NODE) is not None
        left -= 1
        if left:
            hub.loop.call_later(0.01, take_one_later)

    take_one_later()
    hub.run(lambda: not left)
    assert not hub.gone


def test_peer_that_leaves_amid_a_queue_is_forgotten(hub: Hub, announced: list[str]) -> None:
    """Nobody waits for what it does not take any more."""
    announced.append("a session does not listen and is closed")
    peer = hub.connect()
    for number in range(60):
        hub.sessions.send(1, protocol.Refused(number, "x", "t" * 30_000), ())
    peer.close()
    hub.run(lambda: hub.gone == [1])
    hub.sessions.send(1, protocol.Done(1), ())


def test_newest_is_obeyed(hub: Hub) -> None:
    """What is to be held is told to the one that is obeyed."""
    first, second = hub.connect(), hub.connect()
    one, two = (Session(number, peer) for number, peer in ((1, first), (2, second)))
    hub.sessions.announce(protocol.LetGo("v"))
    assert hub.sessions.obey(one)
    assert hub.sessions.obey(one)
    assert hub.sessions.obey(two)
    assert not hub.sessions.obey(one)
    hub.sessions.announce(protocol.LetGo("v"))
    assert packets.receive(second, protocol.AT_NODE) == (protocol.LetGo("v"), [])
    with pytest.raises(BlockingIOError):
        packets.receive(first, protocol.AT_NODE)


def test_process_of_a_peer_is_known(hub: Hub) -> None:
    """A successor that must not serve on can be ended."""
    hub.connect()
    assert hub.sessions.process(1) == os.getpid()


def test_all_but_one_are_hung_up_on(hub: Hub) -> None:
    """A successor is alone with its predecessor."""
    first, second = hub.connect(), hub.connect()
    hub.sessions.close_all_but(2)
    assert hub.gone == [1]
    assert packets.receive(first, protocol.AT_NODE) is None
    hub.sessions.send(2, protocol.Done(1), ())
    assert packets.receive(second, protocol.AT_NODE) == (protocol.Done(1), [])

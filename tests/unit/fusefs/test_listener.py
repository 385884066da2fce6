"""The control socket: appears whole, serves one uid, and never unlinks a successor's."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from fusefs.listener import Listener
from fusefs.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Listening:
    """A listener for this process's uid, or another, and the connections it let in."""

    def __init__(self, path: Path, *, uid: int | None = None) -> None:
        self.path = path
        self.loop = Loop()
        self.accepted: list[tuple[int, socket.socket]] = []
        self.listener = Listener(
            str(path),
            lambda number, connection: self.accepted.append((number, connection)),
            uid=os.geteuid() if uid is None else uid,
        )
        self.listener.start(self.loop)

    def connect(self) -> socket.socket:
        """Connect, and let the listener see to it."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(5)
        connection.connect(str(self.path))
        self.loop.call_later(0, self.loop.stop)
        self.loop.run()
        return connection

    def close(self) -> None:
        """Close everything."""
        self.listener.close()
        self.loop.close()
        for _, connection in self.accepted:
            connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where to listen; the directory is not there yet."""
    return tmp_path / "control" / "keeper.sock"


@pytest.fixture
def listening(path: Path) -> Iterator[Listening]:
    """Return a listener that lets this process in."""
    made = Listening(path)
    yield made
    made.close()


def test_socket_is_reachable_by_its_owner_alone(listening: Listening) -> None:
    """Directory and socket are closed to everybody else, and no hidden name is left."""
    assert stat.S_IMODE(listening.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(listening.path.stat().st_mode) == 0o600
    assert list(listening.path.parent.iterdir()) == [listening.path]


def test_open_directory_is_closed_to_others(path: Path) -> None:
    """A directory that somebody made too open beforehand is corrected."""
    path.parent.mkdir(mode=0o777)
    path.parent.chmod(0o777)
    listening = Listening(path)
    listening.close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_connections_are_numbered_in_their_order(listening: Listening) -> None:
    """The newest session is the one with the highest number; none of them blocks."""
    connections = [listening.connect() for _ in range(3)]
    assert [number for number, _ in listening.accepted] == [1, 2, 3]
    assert {connection.gettimeout() for _, connection in listening.accepted} == {0.0}
    for connection in connections:
        connection.close()


def test_connections_of_other_uids_are_refused(path: Path, announced: list[str]) -> None:
    """The peer's uid is the kernel's word; the connection is closed without a message."""
    announced.append(f"a connection of uid {os.geteuid()} is refused")
    listening = Listening(path, uid=os.geteuid() + 1)
    with listening.connect() as connection:
        assert connection.recv(1) == b""
    assert listening.accepted == []
    listening.close()


def test_socket_is_removed_at_the_end(listening: Listening) -> None:
    """Nobody connects to a keeper that is gone."""
    listening.listener.close()
    assert not listening.path.exists()


def test_successor_takes_the_path_over(listening: Listening) -> None:
    """A new keeper's socket replaces the old one's, which then is not removed by the old one."""
    successor = Listening(listening.path)
    listening.listener.close()
    assert listening.path.exists()
    with successor.connect():
        assert len(successor.accepted) == 1
    successor.close()
    assert not listening.path.exists()


def test_left_over_hidden_name_is_no_obstacle(path: Path) -> None:
    """In a container the pid is always the same: what a predecessor left under it must not stay."""
    path.parent.mkdir()
    left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.bind(str(path.parent / f".keeper.sock.{os.getpid()}"))
    left.close()
    listening = Listening(path)
    assert path.exists()
    listening.close()

"""The control socket: bound under a hidden name, renamed over the fixed path, for uid 0 only."""

import functools
import logging
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fusefs.loop import Loop
from fusefs.sessions import PEER

log = logging.getLogger(__name__)

_BACKLOG: Final = 16


class Listener:
    """Accepts connections of one uid and numbers them."""

    def __init__(
        self, path: str, accepted: Callable[[int, socket.socket], None], *, uid: int = 0
    ) -> None:
        """Call `accepted` with each connection of `uid`."""
        self._path = Path(path)
        self._accepted = accepted
        self._uid = uid
        self._number = 0
        self._inode: tuple[int, int] | None = None
        self._socket: socket.socket | None = None

    def start(self, loop: Loop) -> None:
        """Listen. The rename makes the socket appear whole, also over a predecessor's."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.parent.chmod(0o700)
        # By chance: a keeper with this process id may have been killed just here.
        hidden = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        hidden.unlink(missing_ok=True)  # of a predecessor of the same pid that got no further
        listening = self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(str(hidden))
        hidden.chmod(0o600)
        listening.listen(_BACKLOG)
        self._inode = _identity(hidden)
        hidden.rename(self._path)
        self.resume(loop)

    def pause(self, loop: Loop) -> None:
        """Let those who connect wait."""
        if self._socket is not None:
            loop.unwatch(self._socket.fileno())

    def resume(self, loop: Loop) -> None:
        """Accept again, first those who waited."""
        if self._socket is not None:
            loop.watch(self._socket.fileno(), functools.partial(self._accept, self._socket))

    def close(self) -> None:
        """Stop, and remove the socket unless a successor's has taken its place."""
        if self._socket is not None:
            self._socket.close()
        if self._inode is not None and self._path.exists() and _identity(self._path) == self._inode:
            self._path.unlink()

    def _accept(self, listening: socket.socket) -> None:
        connection, _ = listening.accept()
        _, uid, _ = PEER.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
        )
        if uid != self._uid:
            log.warning("a connection of uid %d is refused", uid)
            connection.close()
            return
        connection.settimeout(0)
        self._number += 1
        self._accepted(self._number, connection)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino

"""Fixed socket paths that change hands without a gap.

A socket is bound under a hidden name beside the fixed path and renamed over it when it answers, so
the path always has a listener behind it, and kubelet's plugin watcher, which ignores hidden names,
never sees one that is not ready. On the way out the path is removed only while it is still ours: a
successor may have put its own socket there.
"""

import logging
import os
import secrets
from pathlib import Path
from typing import Final

import attrs

from csi import logkeys
from csi.errors import SocketError

log = logging.getLogger(__name__)

MAX_PATH_BYTES: Final = 107  # sun_path of unix(7), less the final NUL
_MODE: Final = 0o600


def hidden_name(path: Path) -> Path:
    """Return an unused hidden name in the directory of `path`.

    Raises:
        SocketError: The directory is missing, or the name is too long for a socket.
    """
    hidden = path.with_name(f".{secrets.token_hex(4)}")
    if max(len(os.fsencode(each)) for each in (path, hidden)) > MAX_PATH_BYTES:
        message = f"socket path {path} is too long: use one of at most {MAX_PATH_BYTES} bytes"
        raise SocketError(message)
    if not path.parent.is_dir():
        message = f"socket path {path}: there is no directory {path.parent}; create or mount it"
        raise SocketError(message)
    return hidden


@attrs.frozen(kw_only=True)
class Claim:
    """A fixed path that leads to a socket of ours, until somebody else claims it."""

    path: Path
    identity: tuple[int, int]

    @classmethod
    def take(cls, hidden: Path, path: Path) -> "Claim":
        """Put the socket bound at `hidden` at `path`, in place of whatever is there."""
        hidden.chmod(_MODE)
        identity = _identity(hidden)
        hidden.rename(path)
        return cls(path=path, identity=identity)

    def release(self) -> bool:
        """Remove the path, if it is still ours; return whether it was."""
        if not self.is_held():
            log.info("the socket path has a new owner", extra={logkeys.PATH: str(self.path)})
            return False
        # A successor may come between the look and the removal: so take it away first, look again,
        # and give it back if it was his after all.
        aside = hidden_name(self.path)
        self.path.rename(aside)
        ours = self._is_ours(aside)
        if not ours:
            try:
                self.path.hardlink_to(aside)
            except FileExistsError:
                log.debug("an even newer owner has the path", extra={logkeys.PATH: str(self.path)})
        aside.unlink()
        return ours

    def is_held(self) -> bool:
        """Return whether the path still leads to our socket."""
        return self._is_ours(self.path)

    def _is_ours(self, path: Path) -> bool:
        try:
            return _identity(path) == self.identity
        except FileNotFoundError:
            return False


def _identity(path: Path) -> tuple[int, int]:
    stat = path.lstat()
    return stat.st_dev, stat.st_ino

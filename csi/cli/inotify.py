"""File events by inotify(7), which no library of ours brings: add watches, read what happened."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_HEADER: Final = struct.Struct("=iIII")  # watch, mask, cookie, length of the name
_BUFFER_BYTES: Final = 1 << 16
_NAMES: Final = {
    0x002: "MODIFY",
    0x040: "MOVED_FROM",
    0x080: "MOVED_TO",
    0x100: "CREATE",
    0x200: "DELETE",
}
_WANTED: Final = sum(_NAMES)

_libc = ctypes.CDLL(None, use_errno=True)


class Watcher:
    """Watches one file or folder.

    One each, because two paths to the same file, as through a bind mount, would share their watch.
    """

    def __init__(self, path: Path) -> None:
        """Begin to watch.

        Raises:
            OSError: It cannot be watched.
        """
        self._fd = _checked(_libc.inotify_init1(_NONBLOCK_CLOEXEC), "inotify_init1")
        _checked(_libc.inotify_add_watch(self._fd, os.fsencode(path), _WANTED), str(path))

    def fileno(self) -> int:
        """Return what becomes readable when something has happened."""
        return self._fd

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)

    def events(self) -> list[str]:
        """Return what has happened, as inotify(7) calls it; in a folder with the name."""
        try:
            return parse(os.read(self._fd, _BUFFER_BYTES))
        except BlockingIOError:
            return []


def wait(watchers: Iterable[Watcher], timeout: float) -> None:
    """Return when something has happened to any, or after `timeout` seconds."""
    poll = select.poll()
    for watcher in watchers:
        poll.register(watcher, select.POLLIN)
    poll.poll(timeout * 1000)


def parse(buffer: bytes) -> list[str]:
    """Return the events in what the kernel gave: kind and name."""
    events, offset = [], 0
    while offset < len(buffer):
        _, mask, _, length = _HEADER.unpack_from(buffer, offset)
        start = offset + _HEADER.size
        name = buffer[start : start + length].rstrip(b"\0").decode(errors="surrogateescape")
        events += [f"{kind} {name}".rstrip() for bit, kind in _NAMES.items() if mask & bit]
        offset = start + length
    return events


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result

"""What a watcher in a pod would be told: inotify(7) through libc."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from typing import TYPE_CHECKING, Final, Self

import attrs

if TYPE_CHECKING:
    from pathlib import Path

IN_ALL_EVENTS: Final = 0xFFF
_NAMES: Final = {
    0x1: "ACCESS",
    0x2: "MODIFY",
    0x4: "ATTRIB",
    0x8: "CLOSE_WRITE",
    0x10: "CLOSE_NOWRITE",
    0x20: "OPEN",
    0x40: "MOVED_FROM",
    0x80: "MOVED_TO",
    0x100: "CREATE",
    0x200: "DELETE",
    0x400: "DELETE_SELF",
    0x800: "MOVE_SELF",
}
_EVENT: Final = struct.Struct("=iIII")
_libc = ctypes.CDLL(None, use_errno=True)


@attrs.frozen
class Event:
    """One event: on which watched path, what, and the name below it."""

    watched: str
    kind: str
    name: str


class Watcher:
    """Watches paths; a context manager."""

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._watched: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def watch(self, path: Path, name: str) -> None:
        """Watch `path` for everything; its events carry `name`."""
        number = _libc.inotify_add_watch(self._fd, os.fsencode(path), IN_ALL_EVENTS)
        assert number >= 0, os.strerror(ctypes.get_errno())
        self._watched[number] = name

    def wait_for(self, wanted: set[Event], timeout_s: float = 5.0) -> list[Event]:
        """Collect events until all of `wanted` came, and return them all in order."""
        found: list[Event] = []
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while not wanted <= set(found):
            assert poll.poll(timeout_s * 1000), f"missing {wanted - set(found)}, came {found}"
            found += self.read()
        return found

    def read(self) -> list[Event]:
        """Return the events that are there now."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return []
        events = []
        while data:
            number, mask, _, length = _EVENT.unpack_from(data)
            name = data[_EVENT.size : _EVENT.size + length].rstrip(b"\0").decode()
            data = data[_EVENT.size + length :]
            kind = _NAMES.get(mask & IN_ALL_EVENTS, hex(mask))
            events.append(Event(self._watched[number], kind, name))
        return events

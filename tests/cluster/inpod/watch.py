"""Tells what inotify says, and what the files hold: `watch.py PATH…`, one JSON object a line.

After each event it reads the files among the paths again, so that content stands beside its event.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import struct
import sys
from pathlib import Path

ALL = 0xFFF
NAMES = {
    0x2: "MODIFY",
    0x8: "CLOSE_WRITE",
    0x40: "MOVED_FROM",
    0x80: "MOVED_TO",
    0x100: "CREATE",
    0x200: "DELETE",
}
EVENT = struct.Struct("=iIII")


def main() -> None:
    """Watch until killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    selector = selectors.DefaultSelector()
    for path in sys.argv[1:]:
        # One each: two watches of one file, which paths may be, would be one.
        inotify = libc.inotify_init1(os.O_CLOEXEC)
        if libc.inotify_add_watch(inotify, path.encode(), ALL) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        selector.register(inotify, selectors.EVENT_READ, path)
    tell("", "WATCHING", "")
    while True:
        for key, _ in selector.select():
            tell_events(key.data, os.read(key.fd, 65536))


def tell_events(path: str, data: bytes) -> None:
    """Print the events in what inotify said of a path."""
    while data:
        _, mask, _, length = EVENT.unpack_from(data)
        name = data[EVENT.size : EVENT.size + length].rstrip(b"\0").decode()
        data = data[EVENT.size + length :]
        if mask & 0xFFFF in NAMES:  # its own reads are events as well
            tell(path, NAMES[mask & 0xFFFF], name)


def tell(path: str, kind: str, name: str) -> None:
    """Print an event and what the watched files hold after it."""
    files = {each: Path(each).read_text() for each in sys.argv[1:] if Path(each).is_file()}
    print(json.dumps({"path": path, "kind": kind, "name": name, "files": files}), flush=True)


if __name__ == "__main__":
    main()

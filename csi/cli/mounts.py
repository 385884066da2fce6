"""The few mount operations of kubelet's and a container runtime's part, by system call.

By system call, because `umount(8)` asks the file system at the path about itself first, and one
whose worker is gone does not answer. Reading the mount table touches no mount.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Final

import attrs

_CLONE_NEWNS: Final = 0x00020000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000
_MS_SLAVE: Final = 0x80000
_MS_SHARED: Final = 0x100000
_MNT_FORCE: Final = 1
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8

_OURS: Final = "fuse.akvfs"
_MOST_ROUNDS: Final = 1000  # of mounts stacked below one folder
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")

_libc = ctypes.CDLL(None, use_errno=True)


@attrs.frozen(kw_only=True)
class Mount:
    """One line of the mount table."""

    target: str
    options: frozenset[str]
    filesystem: str
    source: str

    @property
    def is_ours(self) -> bool:
        """Whether this is a volume of akvfs."""
        return self.filesystem == _OURS


def parse(table: str) -> list[Mount]:
    """Return the mounts in the text of a ``mountinfo``, in the order they were made."""
    return [_parse_line(line) for line in table.splitlines() if line]


def at_or_below(path: Path) -> list[Mount]:
    """Return what is mounted at `path` or in it."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    top = str(path)
    return [
        mount for mount in parse(text) if mount.target == top or mount.target.startswith(f"{top}/")
    ]


def bind_private(path: Path) -> None:
    """Make a folder a mount of its own that keeps mounts to itself, as a container's are."""
    _mount(str(path), str(path), _MS_BIND)
    _mount("none", str(path), _MS_PRIVATE)


def bind_shared(path: Path) -> None:
    """Make a folder a mount of its own that passes mounts on, as kubelet's root is on a node.

    Private first: otherwise it would be a peer of the file system that it lies in, if that one is
    shared, and every mount in it would be made there as well, below it.
    """
    bind_private(path)
    _mount("none", str(path), _MS_SHARED)


def bind_file(source: Path, destination: Path) -> None:
    """Let `destination` show `source`, as a container runtime does for a `subPath`."""
    _mount(str(source), str(destination), _MS_BIND)


def enter_namespace() -> None:
    """Give this process mounts of its own that still receive the node's, as a container has."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", "/", _MS_REC | _MS_SLAVE)


def detach(path: Path) -> None:
    """Take off everything that is mounted at `path` or in it; nothing there is fine.

    A volume of ours is aborted, so that nobody goes on waiting for a worker that is gone; no other
    file system is: it may be where `path` itself lies.

    Raises:
        OSError: The kernel refuses.
    """
    for _ in range(_MOST_ROUNDS):
        found = at_or_below(path)
        if not found:
            return
        last = found[-1]
        flags = _MNT_DETACH | _UMOUNT_NOFOLLOW | (_MNT_FORCE if last.is_ours else 0)
        _check(_libc.umount2(os.fsencode(last.target), flags), f"umount {last.target}")


def _parse_line(line: str) -> Mount:
    left, _, right = line.partition(" - ")
    fields, tail = left.split(" "), right.split(" ")
    return Mount(
        target=_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]),
        options=frozenset(fields[5].split(",")),
        filesystem=tail[0],
        source=tail[1],
    )


def _mount(source: str, target: str, flags: int) -> None:
    arguments = (os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None)
    _check(_libc.mount(*arguments), f"mount {source} on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)

"""What a child does to freeze a volume: it makes the kernel know all of it by heart.

It walks the private mount while the worker answers OPEN and OPENDIR with ENOSYS (`fossil`): what is
looked up, listed or read now stays in the kernel's caches, and needs nobody afterwards.
"""

import contextlib
import logging
import os
from collections.abc import Sequence
from typing import Final

from fusefs import initmsg
from fusefs.errors import InvalidSnapshot
from fusefs.plan import DATA_LINK
from fusefs.snapshot import FileEntry, Snapshot

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 3


def fill(device: int, generations: Sequence[tuple[int, bytes]]) -> int:
    """Fill the kernel's caches in the mount of the working directory; return the exit code.

    Args:
        device: The FUSE device, to make the kernel forget what it may have kept of older content.
        generations: Descriptor and digest of every generation kept, oldest first; the last one
            is shown.
    """
    *older, shown = generations
    with contextlib.closing(Snapshot.map(*shown)) as snapshot:
        for entry in snapshot.entries():
            _forget_pages(device, entry.node)
        os.lstat(DATA_LINK)
        os.readlink(DATA_LINK)
        whole = [_fill_tree(device, snapshot, root) for root in ("", f"..{snapshot.generation}/")]
    for generation in older:  # a program may stand in a directory of theirs
        _fill_older(device, generation)
    return 0 if all(whole) else 1


def _fill_older(device: int, generation: tuple[int, bytes]) -> None:
    """Fill the caches for a generation that is shown no longer; the worker may not have it."""
    try:
        with contextlib.closing(Snapshot.map(*generation)) as snapshot:
            _fill_tree(device, snapshot, f"..{snapshot.generation}/")
    except (OSError, InvalidSnapshot) as error:
        log.warning("a generation before the newest one is not frozen: %s", error)


def _fill_tree(device: int, snapshot: Snapshot, root: str) -> bool:
    """Look at every path below `root`; return whether each file reads as the snapshot has it."""
    for directory in snapshot.directories.values():
        path = f"{root}{directory.path}" or "."
        os.stat(path)
        os.listdir(path)
    read = [_fill_file(device, snapshot, root, entry) for entry in snapshot.entries()]
    return all(read)


def _fill_file(device: int, snapshot: Snapshot, root: str, entry: FileEntry) -> bool:
    path = f"{root}{entry.path}"
    for _ in range(_ATTEMPTS):
        if _read(path) == snapshot.content(entry.path):
            return True
        # A private mapping of an older handle has put its pages there.
        _forget_pages(device, os.stat(path).st_ino)
    log.error("a file could not be frozen with its newest content", extra={"path": path})
    return False


def _read(path: str) -> bytes:
    os.stat(path)
    with open(path, "rb", buffering=0) as file:
        # Asked by `ls -l`; refused once, they are never asked again.
        with contextlib.suppress(OSError):
            os.getxattr(file.fileno(), "user.akv.generation")
        with contextlib.suppress(OSError):
            os.listxattr(file.fileno())
        return file.readall()


def _forget_pages(device: int, node: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # the kernel does not know it
        os.write(device, initmsg.invalidate_content(node))

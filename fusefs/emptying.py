"""Making a target that is a plain directory empty, without following links or crossing mounts.

Somebody may have written into it while nothing was mounted: a pod that was started on an empty
host directory, or an installation before ours. It takes long, so it happens in a child.
"""

import os
from collections.abc import Callable
from typing import Final

from fusefs import sandbox, syscalls
from fusefs.children import Children
from fusefs.target import Target

_RESOLVE: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV


def empty_target(target: Target, children: Children, emptied: Callable[[int], None]) -> None:
    """Make `target` an empty directory, and call `emptied` with 0 when it is one.

    Raises:
        TargetRefused: A file, a link or a foreign mount is there, or something is mounted inside.
    """
    directory = target.open()
    try:
        if is_empty(directory):
            emptied(0)
            return
        target.check_emptiable()
        identity = sandbox.Identity(uid=0, capabilities=(sandbox.CAP_DAC_OVERRIDE,))
        children.start(empty_root, emptied, directory=directory, identity=identity)
    finally:
        os.close(directory)


def is_empty(directory: int) -> bool:
    """Return whether the plain directory that an O_PATH descriptor names is empty."""
    fd = os.open(f"/proc/self/fd/{directory}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is None
    finally:
        os.close(fd)


def empty_root() -> int:
    """Remove everything in the root directory, in a child that is confined to it."""
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        empty(root)
    finally:
        os.close(root)
    return 0


def empty(directory: int) -> None:
    """Remove everything in a plain directory, without following links or crossing mounts.

    Raises:
        OSError: EXDEV where something is mounted inside it; what was removed until then is gone.
    """
    with os.scandir(directory) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            continue
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        child = syscalls.openat2(directory, name, flags, _RESOLVE)
        try:
            empty(child)
        finally:
            os.close(child)
        os.rmdir(name, dir_fd=directory)

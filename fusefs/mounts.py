"""Mounts of one volume, by the new mount API and by descriptor.

The private mount of a volume is attached inside a 0700 tmpfs with private propagation that only the
keeper's mount namespace has; what a pod gets is a clone of it, made read-only before it is moved to
the target. A bind that is remounted read-only inside a container stays read-write on the host.
"""

import errno
import os
from typing import Final

from fusefs import mountinfo, syscalls
from fusefs.syscalls import (
    AT_EMPTY_PATH,
    MNT_DETACH,
    MNT_FORCE,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
    UMOUNT_NOFOLLOW,
)

# No noexec: the reference's tmpfs has none, and some secrets are scripts.
_ATTRIBUTES: Final = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
_NOT_A_MOUNT: Final = errno.EINVAL  # umount2(2)


def share_only(path: str) -> None:
    """Leave the host's mount namespace, but let mounts made below `path` go on reaching it.

    Everything else only follows the host: on most hosts even `/` is shared, and nothing of the
    private mounts may be seen there, while a volume that the host unmounts must go here too.

    Raises:
        OSError: `path` cannot be opened.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | syscalls.AT_RECURSIVE
    real = os.path.realpath(path, strict=True)  # what follows is done without following links
    tree = syscalls.open_tree(syscalls.AT_FDCWD, real, flags)
    try:
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        _detach(real, MNT_DETACH)  # in a container it is a mount, whose copies of ours nobody needs
        place = os.open(real, os.O_PATH | os.O_DIRECTORY)
        try:
            syscalls.move_mount(tree, place, "")
        finally:
            os.close(place)
    finally:
        os.close(tree)


def mount_private_root(path: str) -> None:
    """Mount the tmpfs that holds the private mounts, seen by this mount namespace only."""
    syscalls.mount("akvfs-keeper", path, "tmpfs", 0, "mode=0700,size=1m")
    syscalls.mount(None, path, None, syscalls.MS_PRIVATE)


def mount_fuse(device: int, path: str, *, selinux_context: str = "") -> None:
    """Mount a new FUSE superblock served through `device` at `path`; it starts read-only.

    ``default_permissions`` lets the kernel check modes, ``allow_other`` lets every uid reach them,
    and where SELinux is on, `selinux_context` labels every file.
    """
    context = syscalls.fsopen("fuse")
    try:
        # SET_FD is refused by FUSE's legacy parser: the descriptor goes as a string.
        for key, value in (
            ("source", mountinfo.SOURCE),
            ("subtype", "akvfs"),
            ("fd", str(device)),
            ("rootmode", "40000"),
            ("user_id", "0"),
            ("group_id", "0"),
            *([("context", selinux_context)] if selinux_context else []),
        ):
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, value)
        for flag in ("allow_other", "default_permissions", "ro"):
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FLAG, flag)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        mount = syscalls.fsmount(context, _ATTRIBUTES)
    finally:
        os.close(context)
    try:
        syscalls.move_mount(mount, syscalls.AT_FDCWD, path)
    finally:
        os.close(mount)


def open_mount(path: str) -> int:
    """Return a descriptor of the mount at `path`, without asking its file system anything."""
    return syscalls.open_tree(syscalls.AT_FDCWD, path, OPEN_TREE_CLOEXEC)


def set_superblock_writable(mount: int, *, writable: bool) -> None:
    """Let writes through the private mount reach the worker, or not.

    Raises:
        OSError: EBUSY when a file is still open for writing and `writable` is False.
    """
    context = syscalls.fspick(mount)
    try:
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FLAG, "rw" if writable else "ro")
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_RECONFIGURE)
    finally:
        os.close(context)


def attach_read_only_clone(mount: int, target: int) -> None:
    """Put a read-only clone of `mount` onto the directory that descriptor `target` names."""
    clone = syscalls.open_tree(mount, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
    try:
        syscalls.mount_setattr(clone, _ATTRIBUTES | MOUNT_ATTR_RDONLY)
        syscalls.move_mount(clone, target, "")
    finally:
        os.close(clone)


def mount_writable_clone(parent: int, name: str, path: str) -> None:
    """Mount what is on `name` in the directory `parent` at `path` too, where writes get through."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
    clone = syscalls.open_tree(parent, name, flags)
    try:
        syscalls.mount_setattr(clone, _ATTRIBUTES, clear=MOUNT_ATTR_RDONLY)
        syscalls.move_mount(clone, syscalls.AT_FDCWD, path)
    finally:
        os.close(clone)


def detach(path: str) -> None:
    """Detach the mount at `path` and nothing more; absent is fine."""
    _detach(path, MNT_DETACH)


def abort_and_detach(path: str) -> None:
    """Abort the connection of the private mount at `path`, then detach it; absent is fine.

    The abort comes first: a request that a dead worker had taken would hold its caller for ever.
    """
    _detach(path, MNT_FORCE | MNT_DETACH)


def detach_below(parent: int, name: str) -> bool:
    """Detach the uppermost mount on `name` in the directory `parent`; False when there is none."""
    return _detach(f"/proc/self/fd/{parent}/{name}", MNT_DETACH)


def _detach(path: str, flags: int) -> bool:
    try:
        syscalls.umount2(path, flags | UMOUNT_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == _NOT_A_MOUNT:
            return False
        raise
    return True

"""System calls that Python has no binding for; numbers are those of x86_64 and arm64 alike.

Each function raises `OSError` with the kernel's errno and the name of the call. Numbers and flags:
``include/uapi/asm-generic/unistd.h``, ``linux/mount.h``, ``linux/openat2.h``, ``linux/prctl.h``,
``linux/capability.h``.
"""

import ctypes
import os
import struct
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)

_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_FSPICK: Final = 433
_OPENAT2: Final = 437
_MOUNT_SETATTR: Final = 442
_MEMFD_SECRET: Final = 447

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000

OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
FSOPEN_CLOEXEC: Final = 1
FSMOUNT_CLOEXEC: Final = 1
FSPICK_CLOEXEC: Final = 1
FSPICK_EMPTY_PATH: Final = 8
FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_CMD_CREATE: Final = 6
FSCONFIG_CMD_RECONFIGURE: Final = 7
MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_REC: Final = 1 << 14
MNT_FORCE: Final = 1
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWNET: Final = 0x40000000

SECRETMEM_MAGIC: Final = 0x5345434D
_STATFS_BYTES: Final = 256  # more than any; the type comes first

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_SET_NAME: Final = 15
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _optional(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def fsopen(filesystem: str) -> int:
    """Return a file system context for `filesystem`."""
    return _call("fsopen", _libc.syscall(_FSOPEN, os.fsencode(filesystem), FSOPEN_CLOEXEC))


def fsconfig(context: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """Set a parameter of a file system context, or run a command on it."""
    result = _libc.syscall(_FSCONFIG, context, command, _optional(key), _optional(value), 0)
    _call(f"fsconfig {key or command}", result)


def fsmount(context: int, attributes: int) -> int:
    """Return a detached mount of the superblock that `context` created."""
    return _call("fsmount", _libc.syscall(_FSMOUNT, context, FSMOUNT_CLOEXEC, attributes))


def fspick(mount: int) -> int:
    """Return a context to reconfigure the superblock of the mount that descriptor `mount` is on."""
    flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH
    return _call("fspick", _libc.syscall(_FSPICK, mount, b"", flags))


def open_tree(directory: int, path: str, flags: int) -> int:
    """Return a descriptor of a mount, or of a clone of it."""
    return _call("open_tree", _libc.syscall(_OPEN_TREE, directory, os.fsencode(path), flags))


def move_mount(source: int, target_directory: int, target_path: str) -> None:
    """Attach the detached mount `source`; an empty `target_path` means the descriptor itself."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target_path else MOVE_MOUNT_T_EMPTY_PATH)
    path = os.fsencode(target_path)
    _call("move_mount", _libc.syscall(_MOVE_MOUNT, source, b"", target_directory, path, flags))


def mount_setattr(mount: int, attributes: int, *, clear: int = 0, propagation: int = 0) -> None:
    """Set and clear attributes of one mount; `propagation` is a flag of mount(2), 0 leaves it."""
    argument = struct.pack("=QQQQ", attributes, clear, propagation, 0)
    result = _libc.syscall(_MOUNT_SETATTR, mount, b"", AT_EMPTY_PATH, argument, len(argument))
    _call("mount_setattr", result)


def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """Open `path` below `directory` under the restrictions `resolve`."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    encoded = os.fsencode(path)
    return _call("openat2", _libc.syscall(_OPENAT2, directory, encoded, how, len(how)))


def memfd_secret() -> int:
    """Return a descriptor of memory that not even the kernel maps elsewhere (memfd_secret(2))."""
    return _call("memfd_secret", _libc.syscall(_MEMFD_SECRET, os.O_CLOEXEC))


def filesystem_type(fd: int) -> int:
    """Return the magic number of the file system that an open file is on (fstatfs(2))."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    _call("fstatfs", _libc.fstatfs(fd, buffer))
    return int(struct.unpack_from("@l", buffer)[0])


def mount(
    source: str | None, target: str, filesystem: str | None, flags: int, data: str = ""
) -> None:
    """Mount a file system the old way (mount(2))."""
    arguments = (_optional(source), os.fsencode(target), _optional(filesystem))
    _call("mount", _libc.mount(*arguments, ctypes.c_ulong(flags), os.fsencode(data)))


def umount2(target: str, flags: int) -> None:
    """Unmount what is at `target` (umount2(2))."""
    _call("umount2", _libc.umount2(os.fsencode(target), flags))


def unshare(flags: int) -> None:
    """Leave namespaces (os.unshare exists only from Python 3.12)."""
    _call("unshare", _libc.unshare(flags))


def prctl(option: int, argument: int, argument2: int = 0) -> int:
    """Set a property of this process (prctl(2)), with integer arguments."""
    arguments = (ctypes.c_ulong(argument), ctypes.c_ulong(argument2))
    return _call(f"prctl {option}", _libc.prctl(option, *arguments, *(ctypes.c_ulong(0),) * 2))


def set_process_name(name: str) -> None:
    """Name this process as `ps` and a core pattern would show it (15 bytes at most)."""
    _call("prctl", _libc.prctl(PR_SET_NAME, ctypes.c_char_p(os.fsencode(name)[:15]), 0, 0, 0))


def capset(capabilities: int) -> None:
    """Make `capabilities` (a bit mask) the effective and permitted set; nothing is inheritable."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    _call("capset", _libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)))

"""A pod's user namespace, and its volume as a container runtime mounts it there: ids mapped."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from fusefs import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FIRST_UID: Final = 100_000  # what uid 0 of the pod is on the host
_IDS: Final = 65536
_MOUNT_SETATTR: Final = 442
_MOUNT_ATTR_IDMAP: Final = 0x00100000
_libc = ctypes.CDLL(None, use_errno=True)


class UserNamespace:
    """A user namespace that a sleeping process holds open."""

    def __init__(self, pid: int) -> None:
        """Use `user_namespace` instead."""
        self.pid = pid

    @contextmanager
    def mapped(self, source: Path, destination: Path) -> Iterator[Path]:
        """Mount `source` at `destination` with the ids of this namespace.

        Raises:
            OSError: The file system does not let its ids be mapped.
        """
        destination.mkdir()
        flags = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC
        tree = syscalls.open_tree(syscalls.AT_FDCWD, str(source), flags)
        namespace = os.open(f"/proc/{self.pid}/ns/user", os.O_RDONLY)
        try:
            _map_ids(tree, namespace)
            syscalls.move_mount(tree, syscalls.AT_FDCWD, str(destination))
        finally:
            os.close(namespace)
            os.close(tree)
        try:
            yield destination
        finally:
            syscalls.umount2(str(destination), syscalls.MNT_DETACH)

    def command(self, program: Sequence[str], *, uid: int = 0) -> list[str]:
        """Return what runs `program` as user and group `uid` of this namespace."""
        enter = ["nsenter", "--target", str(self.pid), "--user"]
        return [*enter, f"--setuid={uid}", f"--setgid={uid}", "--", *program]


@contextmanager
def user_namespace() -> Iterator[UserNamespace]:
    """Make a user namespace whose ids are not those of the host."""
    held = subprocess.Popen(["unshare", "--user", "sh", "-c", "echo; exec sleep 60"], stdout=-1)
    try:
        assert held.stdout is not None
        assert held.stdout.readline() == b"\n"
        for table in ("uid_map", "gid_map"):
            with open(f"/proc/{held.pid}/{table}", "w", encoding="ascii") as file:
                file.write(f"0 {FIRST_UID} {_IDS}")
        yield UserNamespace(held.pid)
    finally:
        held.kill()
        held.wait(timeout=5)
        assert held.stdout is not None
        held.stdout.close()


def _map_ids(tree: int, namespace: int) -> None:
    argument = struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, namespace)
    result = _libc.syscall(
        _MOUNT_SETATTR, tree, b"", syscalls.AT_EMPTY_PATH, argument, len(argument)
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

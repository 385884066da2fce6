"""The tmpfs of one volume that FUSE cannot serve: mounted by the keeper, or found at the target."""

import contextlib
import errno
import os
from typing import Final, Self

from fusefs import mountinfo, mounts, syscalls
from fusefs.errors import VolumeFailed
from fusefs.privatemount import PrivateMount
from fusefs.snapshot import MAX_SNAPSHOT_BYTES
from fusefs.target import Target

# Room for two generations, each of which may fill its last pages badly.
_SIZE_BYTES: Final = 4 * MAX_SNAPSHOT_BYTES
_ATTRIBUTES: Final = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV


class Tmpfs(PrivateMount):
    """One tmpfs, writable at `private` in the keeper's mount namespace."""

    @classmethod
    def create(cls, private: str, *, selinux_context: str = "") -> Self:
        """Mount a new tmpfs at `private`, which is made for it."""
        os.mkdir(private, 0o700)
        with contextlib.ExitStack() as undo:
            undo.callback(os.rmdir, private)
            _mount(private, selinux_context)
            undo.pop_all()
        return cls(private)

    @classmethod
    def adopt(cls, private: str, target: Target) -> Self:
        """Mount what is on `target` once more, at `private`, which is made for it.

        Raises:
            VolumeFailed: It is no tmpfs of a volume any longer.
        """
        os.mkdir(private, 0o700)
        with contextlib.ExitStack() as undo:
            undo.callback(os.rmdir, private)
            mounts.mount_writable_clone(target.parent, target.name, private)
            undo.callback(mounts.detach, private)
            if not any(mount.target == private and mount.is_tmpfs for mount in mountinfo.mounts()):
                message = f"target {target.path!r}: the mount on it changed meanwhile; try again"
                raise VolumeFailed(message)
            undo.pop_all()
        return cls(private)

    def close(self) -> None:
        """Detach the private mount; what the target shows stays."""
        mounts.detach(str(self._private))
        self._private.rmdir()


def _mount(path: str, selinux_context: str) -> None:
    context = syscalls.fsopen("tmpfs")
    try:
        for key, value in (
            ("source", mountinfo.SOURCE),
            ("mode", "0755"),
            ("size", str(_SIZE_BYTES)),
            *([("context", selinux_context)] if selinux_context else []),
        ):
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, value)
        try:
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FLAG, "noswap")
        except OSError as error:
            if error.errno != errno.EINVAL:  # before Linux 6.4
                raise
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        mount = syscalls.fsmount(context, _ATTRIBUTES)
    finally:
        os.close(context)
    try:
        syscalls.move_mount(mount, syscalls.AT_FDCWD, path)
    finally:
        os.close(mount)

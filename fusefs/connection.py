"""The FUSE connection of one volume: its device, its private mount and what INIT said.

The connection lives as long as a process holds the device; this object is the keeper's hold on it.
"""

import contextlib
import errno
import os
import select
import stat
from typing import Final, Self

from fusefs import initmsg, mountinfo, mounts
from fusefs.errors import KernelUnsupported, VolumeFailed
from fusefs.privatemount import PrivateMount
from fusefs.target import Target

INIT_TIMEOUT_S: Final = 2.0
_NEEDED_FOR: Final = {
    initmsg.FUSE_HAS_RESEND: "FUSE RESEND (Linux 6.9 or newer has it), which --takeover=resend "
    "asks for; set --takeover=auto",
    initmsg.FUSE_ALLOW_IDMAP: "mapped ids in FUSE (Linux 6.12 or newer does), which a pod with "
    "hostUsers: false needs; use hostUsers: true, or a tmpfs",
}
_DEVICE_NUMBER: Final = os.makedev(10, 229)  # of /dev/fuse, on every Linux


class Connection(PrivateMount):
    """One superblock, mounted at `private` in the keeper's mount namespace.

    Attributes:
        device: The FUSE device, whose last close would abort the connection.
        init_request: INIT as the kernel sent it; replayed to every worker.
        first_reply: The first worker's reply to INIT, None until it came.
    """

    def __init__(
        self, private: str, device: int, init_request: bytes, first_reply: bytes | None
    ) -> None:
        """Use `open` or `adopt` instead."""
        super().__init__(private)
        self.device = device
        self.init_request = init_request
        self.first_reply = first_reply

    @classmethod
    def open(cls, private: str, *, selinux_context: str = "") -> Self:
        """Mount a new superblock at `private`, which is made for it, and read INIT.

        Raises:
            VolumeFailed: The kernel sent no INIT.
        """
        os.mkdir(private, 0o700)
        with contextlib.ExitStack() as undo:
            undo.callback(os.rmdir, private)
            device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
            undo.callback(os.close, device)
            undo.callback(mounts.abort_and_detach, private)
            mounts.mount_fuse(device, private, selinux_context=selinux_context)
            made = cls(private, device, _read_init(device), None)
            undo.pop_all()
        return made

    @classmethod
    def adopt(
        cls,
        private: str,
        device: int,
        *,
        init_request: bytes,
        first_reply: bytes,
        target: Target,
        selinux_context: str = "",
    ) -> Self:
        """Mount the superblock behind `device` once more, at `private`, which is made for it.

        `device` belongs to the result, but on failure it stays the caller's, and nothing is
        aborted: somebody else may serve it.

        Raises:
            VolumeFailed: It is no device of a living connection of ours.
        """
        found = os.fstat(device)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _DEVICE_NUMBER:
            message = "what is given back is no FUSE device"
            raise VolumeFailed(message)
        adopted = cls(private, device, init_request, first_reply)
        if adopted.is_dead():
            message = "its FUSE connection has ended; publish it again"
            raise VolumeFailed(message)
        os.mkdir(private, 0o700)
        with contextlib.ExitStack() as undo:
            undo.callback(os.rmdir, private)
            undo.callback(mounts.detach, private)
            try:
                mounts.mount_fuse(device, private, selinux_context=selinux_context)
            except OSError:  # before about Linux 5.13 a device mounts once; the target has it too
                mounts.mount_writable_clone(target.parent, target.name, private)
            if not any(mount.target == private and mount.is_ours for mount in mountinfo.mounts()):
                message = "what is given back is no file system of ours"
                raise VolumeFailed(message)
            undo.pop_all()
        return adopted

    def require(self, flags: int) -> None:
        """Raise `KernelUnsupported` unless the kernel offers `flags`."""
        missing = flags & ~initmsg.offered_flags(self.init_request)
        for flag, what in _NEEDED_FOR.items():
            if missing & flag:
                message = f"this kernel does not offer {what}"
                raise KernelUnsupported(message)

    def is_dead(self) -> bool:
        """Return whether the kernel aborted the connection: its device then polls as an error."""
        poll = select.poll()
        poll.register(self.device, 0)
        return bool(poll.poll(0))

    def set_writable(self, *, writable: bool) -> bool:
        """Let writes through the private mount reach the worker, or not.

        Returns:
            False when the kernel refused to go read-only since a file is still open for writing.
        """
        mount = self.open_mount()
        try:
            mounts.set_superblock_writable(mount, writable=writable)
        except OSError as error:
            if writable or error.errno != errno.EBUSY:
                raise
            return False
        finally:
            os.close(mount)
        return True

    def close(self) -> None:
        """Abort, then detach, then let go: else a dead worker's callers would wait for ever."""
        mounts.abort_and_detach(str(self._private))
        os.close(self.device)
        self._private.rmdir()


def _read_init(device: int) -> bytes:
    """Read INIT, which the kernel sends at once and only once."""
    poll = select.poll()
    poll.register(device, select.POLLIN)
    if not poll.poll(INIT_TIMEOUT_S * 1000):
        message = "the kernel sent no INIT request"
        raise VolumeFailed(message)
    return os.read(device, initmsg.READ_BUFFER_BYTES)

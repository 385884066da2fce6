"""The FUSE connection of one volume: its device, its private mount and what INIT said.

The connection lives as long as a process holds the device; this object is the keeper's hold on it.
"""

import errno
import os
import select
from pathlib import Path
from typing import Final

from fusefs import initmsg, mountinfo, mounts
from fusefs.errors import KernelUnsupported, VolumeFailed
from fusefs.target import Target

INIT_TIMEOUT_S: Final = 2.0


class Connection:
    """One superblock, mounted at `private` in the keeper's mount namespace.

    Attributes:
        device: The FUSE device, whose last close would abort the connection.
        init_request: INIT as the kernel sent it; replayed to every worker.
        first_reply: The first worker's reply to INIT, None until it came.
    """

    def __init__(self, private: str) -> None:
        """Mount at `private`, which is made for it, and read INIT.

        Raises:
            VolumeFailed: The kernel sent no INIT.
        """
        self._private = Path(private)
        self._private.mkdir(mode=0o700)
        self.device = -1
        self.first_reply: bytes | None = None
        try:
            self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
            mounts.mount_fuse(self.device, private)
            self.init_request = self._read_init()
        except BaseException:
            self.close()
            raise

    def _read_init(self) -> bytes:
        """Read INIT, which the kernel sends at once and only once."""
        poll = select.poll()
        poll.register(self.device, select.POLLIN)
        if not poll.poll(INIT_TIMEOUT_S * 1000):
            message = "the kernel sent no INIT request"
            raise VolumeFailed(message)
        return os.read(self.device, initmsg.READ_BUFFER_BYTES)

    def require(self, flags: int) -> None:
        """Raise `KernelUnsupported` unless the kernel offers `flags`."""
        if flags & ~initmsg.offered_flags(self.init_request):
            message = (
                "this kernel does not offer FUSE RESEND (Linux 6.9 or newer has it), without which "
                "a volume would not survive its worker; run this node on a newer kernel"
            )
            raise KernelUnsupported(message)

    def is_dead(self) -> bool:
        """Return whether the kernel aborted the connection: its device then polls as an error."""
        poll = select.poll()
        poll.register(self.device, 0)
        return bool(poll.poll(0))

    def open_mount(self) -> int:
        """Return a descriptor of the private mount, without asking the worker anything."""
        return mounts.open_mount(str(self._private))

    def attach(self, target: Target) -> None:
        """Make `target` show the volume, read-only.

        Raises:
            TargetRefused: Something that is not ours has come to be there.
        """
        mount = self.open_mount()
        try:
            directory = target.open()
            try:
                mounts.attach_read_only_clone(mount, directory)
            finally:
                os.close(directory)
        finally:
            os.close(mount)

    def is_on(self, target: Target) -> bool:
        """Return whether what `target` shows is this volume."""
        private = str(self._private)
        devices = {mount.device for mount in mountinfo.mounts() if mount.target == private}
        return {mount.device for mount in target.mounts()[-1:]} == devices

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
        if self.device >= 0:
            os.close(self.device)
        self._private.rmdir()

"""The private mount of a volume: where the keeper, and nobody else, reaches its file system."""

import os
from pathlib import Path

from fusefs import mountinfo, mounts
from fusefs.target import Target


class PrivateMount:
    """One superblock, mounted at `private` in the keeper's mount namespace."""

    def __init__(self, private: str) -> None:
        """Use what is mounted at `private`."""
        self._private = Path(private)

    def open_mount(self) -> int:
        """Return a descriptor of the private mount, without asking its file system anything."""
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

"""The directory that a volume is mounted on: where it may be, and what may be there.

kubelet's layout is ``<root>/pods/UID/volumes/kubernetes.io~csi/NAME/mount``; kubelet writes
``vol_data.json`` beside ``mount`` before it calls. The directory is reached from a held
descriptor of ``<root>/pods`` without following any link or crossing any mount, so no path of a
pod leads elsewhere.
"""

import contextlib
import errno
import json
import os
import re
from pathlib import PurePosixPath
from typing import ClassVar, Final

import attrs

from fusefs import mountinfo, mounts, sightings, syscalls
from fusefs.errors import TargetRefused

_CSI: Final = "kubernetes.io~csi"
_NAME: Final = re.compile(r"^(?!\.{1,2}$)[^/\0]{1,255}$")
_UID: Final = re.compile(r"^[A-Za-z0-9-]{1,64}$")
_MAX_VOLUME_DATA_BYTES: Final = 64 << 10
_DIRECTORY_MODE: Final = 0o750  # as kubelet and the reference driver make it
_RESOLVE: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV
_MOUNT: Final = "mount"


class KubeletRoot:
    """kubelet's root directory, held by its ``pods``; the root itself may be a link."""

    def __init__(self, root: str) -> None:
        """Open ``<root>/pods``.

        Raises:
            FileNotFoundError: There is no such directory.
        """
        self.root = PurePosixPath(root)
        self.descriptor = os.open(f"{root}/pods", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def target(self, path: str, *, volume_id: str, driver: str) -> "Target":
        """Return the target at `path`, whose parent must belong to this volume of this driver.

        Raises:
            TargetRefused: `path` does not follow the layout, or kubelet did not prepare it for us.
        """
        parent_path = self._checked(path)
        try:
            parent = syscalls.openat2(
                self.descriptor, parent_path, os.O_PATH | os.O_DIRECTORY, _RESOLVE
            )
        except OSError as error:
            message = f"target {path!r}: {_describe(error, 'its parent directory')}"
            raise TargetRefused(message) from error
        try:
            _check_volume_data(parent, path, volume_id=volume_id, driver=driver)
        except BaseException:
            os.close(parent)
            raise
        return Target(path=path, parent=parent)

    def parent_if_present(self, path: str) -> "Target | None":
        """Return the target at `path` without asking whose it is; None when its parent is absent.

        Raises:
            TargetRefused: `path` does not follow the layout.
        """
        parent_path = self._checked(path)
        try:
            parent = syscalls.openat2(
                self.descriptor, parent_path, os.O_PATH | os.O_DIRECTORY, _RESOLVE
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            message = f"target {path!r}: {_describe(error, 'its parent directory')}"
            raise TargetRefused(message) from error
        return Target(path=path, parent=parent)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    def _checked(self, path: str) -> str:
        """Return the part between ``pods/`` and ``/mount``."""
        parts = PurePosixPath(path).parts
        length = len(self.root.parts)
        tail = parts[length:]
        follows = (
            str(PurePosixPath(path)) == path
            and parts[:length] == self.root.parts
            and tail[:1] + tail[2:4] + tail[5:] == ("pods", "volumes", _CSI, _MOUNT)
        )
        if not follows or not _UID.fullmatch(tail[1]) or not _NAME.fullmatch(tail[4]):
            message = (
                f"target {path!r} does not follow "
                f"{self.root}/pods/UID/volumes/{_CSI}/NAME/{_MOUNT}; check --kubelet-root"
            )
            raise TargetRefused(message, layout=True)
        return "/".join(tail[1:5])


@attrs.define
class Target:
    """A target whose parent is held; `close` lets go of it.

    Attributes:
        left_in: Containers that go on seeing what was detached here, until they are restarted.
    """

    path: str
    parent: int
    left_in: set[str] = attrs.field(factory=set, init=False)
    name: ClassVar[str] = _MOUNT

    def open(self) -> int:
        """Make the directory if it is absent, and return a descriptor of it.

        A mount of ours that is found there is dead, or frozen, since the keeper does not know the
        volume: it is detached. A directory that was emptied is fine, anything else is refused.

        Raises:
            TargetRefused: A file, a link, or a mount that is not ours is there.
        """
        while True:
            try:
                # Without O_NOFOLLOW: with it a link is no directory (ENOTDIR), not a link (ELOOP).
                return syscalls.openat2(self.parent, _MOUNT, os.O_PATH | os.O_DIRECTORY, _RESOLVE)
            except FileNotFoundError:
                os.mkdir(_MOUNT, _DIRECTORY_MODE, dir_fd=self.parent)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    message = f"target {self.path!r}: {_describe(error, 'it')}"
                    raise TargetRefused(message) from error
                self.left_in.update(sightings.containers_seeing(self._detach_ours()))

    def shows_tmpfs(self) -> bool:
        """Return whether a tmpfs volume is there, which a pod may be using.

        Dead mounts of ours above it are detached.
        """
        while (stack := self.mounts()) and stack[-1].is_ours:
            if not any(mount.is_tmpfs for mount in stack):
                return False
            self.left_in.update(sightings.containers_seeing(self._detach_ours()))
        return bool(stack) and stack[-1].is_tmpfs

    def _detach_ours(self) -> mountinfo.Mount:
        """Detach the uppermost mount; a tmpfs only where kubelet prepared a volume for us."""
        stack = self.mounts()
        if not stack or not (stack[-1].is_ours or stack[-1].is_tmpfs):
            whose = f"{stack[-1].filesystem}, source {stack[-1].source!r}" if stack else "unknown"
            message = f"target {self.path!r} holds a mount that is not ours ({whose}); unmount it"
            raise TargetRefused(message)
        if not mounts.detach_below(self.parent, _MOUNT):
            message = f"target {self.path!r}: the mount on it changed meanwhile; try again"
            raise TargetRefused(message)
        return stack[-1]

    def mounts(self) -> list[mountinfo.Mount]:
        """Return what is stacked on the target, lowest first."""
        return mountinfo.stack_on(self.parent, _MOUNT)

    def check_emptiable(self) -> None:
        """Check that nothing is mounted inside the target, which must be a plain directory.

        Raises:
            TargetRefused: Something is; emptying would stop there, half done.
        """
        below = f"{self._mountpoint}/"
        for mount in mountinfo.mounts():
            if mount.target.startswith(below):
                message = (
                    f"target {self.path!r} has a mount inside it "
                    f"(at {mount.target.removeprefix(below)!r}); unmount it"
                )
                raise TargetRefused(message)

    @property
    def _mountpoint(self) -> str:
        """The path of the target as the mount table has it."""
        return f"{os.readlink(f'/proc/self/fd/{self.parent}')}/{_MOUNT}"

    def detach(self) -> None:
        """Take every mount of ours off the target, and remove it if it is an empty directory then.

        Raises:
            TargetRefused: A mount that is not ours is in the way.
        """
        while self.mounts():
            self._detach_ours()
        with contextlib.suppress(OSError):
            os.rmdir(_MOUNT, dir_fd=self.parent)

    def remove(self, *, volume_id: str, driver: str) -> bool:
        """Take every mount of ours off the target and remove it; a link goes, never what it names.

        Content goes only from a directory that kubelet made for this volume: it may be anybody's.

        Returns:
            False when it is a directory that has something in it, which may go.

        Raises:
            TargetRefused: A mount, or something else, that is not ours is in the way.
        """
        while stack := self.mounts():
            if stack[-1].is_tmpfs and stack[-1].source != mountinfo.SOURCE:
                _check_volume_data(self.parent, self.path, volume_id=volume_id, driver=driver)
            self._detach_ours()
        try:
            os.rmdir(_MOUNT, dir_fd=self.parent)
        except FileNotFoundError:
            return True
        except NotADirectoryError:
            _check_volume_data(self.parent, self.path, volume_id=volume_id, driver=driver)
            os.unlink(_MOUNT, dir_fd=self.parent)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                message = f"target {self.path!r}: {_describe(error, 'it')}"
                raise TargetRefused(message) from error
            _check_volume_data(self.parent, self.path, volume_id=volume_id, driver=driver)
            self.check_emptiable()
            return False
        return True

    def close(self) -> None:
        """Let go of the parent."""
        os.close(self.parent)


def _describe(error: OSError, what: str) -> str:
    match error.errno:
        case errno.ELOOP:
            return f"{what} is reached through a symbolic link; remove the link"
        case errno.ENOTDIR:
            return f"{what} is not a directory; remove the file"
        case errno.ENOENT:
            return f"{what} does not exist; kubelet makes it before it calls"
        case errno.EXDEV:
            return f"{what} is on a mount inside kubelet's pods directory; unmount it"
        case errno.ENOTEMPTY:
            return f"{what} is not empty; remove what is in it"
        case _:
            return f"{what} cannot be used: {os.strerror(error.errno or 0)}"


def _check_volume_data(parent: int, path: str, *, volume_id: str, driver: str) -> None:
    """Check the file that kubelet writes beside the target, under the names that it uses."""
    name = "vol_data.json"
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = syscalls.openat2(parent, name, flags, _RESOLVE)
        try:
            data = json.loads(os.read(fd, _MAX_VOLUME_DATA_BYTES))
        finally:
            os.close(fd)
    except (OSError, TypeError, ValueError, RecursionError) as error:
        message = f"target {path!r}: {name} beside it cannot be read; kubelet writes it first"
        raise TargetRefused(message) from error
    found = (data.get("driverName"), data.get("volumeHandle")) if isinstance(data, dict) else None
    if found != (driver, volume_id):
        message = (
            f"target {path!r}: {name} beside it names another driver or volume "
            f"than {driver!r} and {volume_id!r}"
        )
        raise TargetRefused(message)

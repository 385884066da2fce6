"""The folder of one run: locked while it lives, put back to what it was afterwards.

The lock is on the folder itself and ends with the process, so it says who is alive. A small file
says, from before the first change on, how to undo: the marker of the run's processes and which
folders did not exist before. A later run in the same folder finishes what a killed one could not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from csi.cli import mounts, traces
from csi.cli.errors import DirectoryRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE: Final = ".akvfs-playground"
INDEX: Final = "playground.json"

_FOLDERS: Final = ("kubelet", "keeper", "csi", "providers", "emulator", "classes", "logs", "pod")
_FILES: Final = ("emulator.yaml", INDEX, "playground.sock")
_MAX_SOCKET_PATH: Final = 107  # sun_path, unix(7)
# While a program puts a socket in place, its name has this on top.
_HIDDEN: Final = len("..4194304.abcdefgh")


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """Content of the state file."""

    run: str
    created: list[str]  # folders that did not exist, outermost first


@attrs.frozen(kw_only=True)
class Workspace:
    """Where everything of a run lies.

    Attributes:
        root: The folder, without links in its path.
        run: The marker of the run's processes.
    """

    root: Path
    run: str

    @property
    def kubelet(self) -> Path:
        """Kubelet's root directory, a shared mount."""
        return self.root / "kubelet"

    @property
    def keeper_socket(self) -> Path:
        """The keeper's control socket."""
        return self.root / "keeper" / "keeper.sock"

    @property
    def csi_socket(self) -> Path:
        """Where kubelet calls the node server."""
        return self.root / "csi" / "csi.sock"

    @property
    def providers(self) -> Path:
        """The folder in which providers have their sockets."""
        return self.root / "providers"

    @property
    def provider_socket(self) -> Path:
        """Where the node server calls the provider."""
        return self.providers / "azure.sock"

    @property
    def emulator(self) -> Path:
        """Where the emulator describes itself."""
        return self.root / "emulator"

    @property
    def emulator_config(self) -> Path:
        """What the emulator starts with."""
        return self.root / "emulator.yaml"

    @property
    def classes(self) -> Path:
        """The SecretProviderClasses."""
        return self.root / "classes"

    @property
    def pod(self) -> Path:
        """A folder for the container that the demo plays."""
        return self.root / "pod"

    @property
    def index(self) -> Path:
        """What the playground says about itself."""
        return self.root / INDEX

    @property
    def control_socket(self) -> Path:
        """Where `akvfs playground set` calls."""
        return self.root / "playground.sock"

    def log(self, program: str) -> Path:
        """Return the log of a program."""
        return self.root / "logs" / f"{program}.log"

    def replace(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        """Put a file in place, complete from the first moment."""
        hidden = path.with_name(f".{path.name}.new")
        fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(fd, "wb") as stream:  # noqa: PTH123 - a descriptor
            stream.write(content)
        hidden.rename(path)


@contextmanager
def occupied(directory: Path) -> Iterator[Workspace]:
    """Use a folder while the block runs; afterwards it is what it was, absent if it was absent.

    Raises:
        DirectoryRefused: Somebody uses it, or has files in it where ours would go.
    """
    root = directory.resolve()
    _check_length(root)
    created = _make(root)
    lock = _lock(root, created)
    try:
        state_file = root / STATE
        before = _read_state(state_file)
        if before is not None:
            _undo(root, before.run)
            created = [*before.created, *(each for each in created if each not in before.created)]
        try:
            _check_free(root)
        except DirectoryRefused:
            _remove_created(state_file, created)
            raise
        workspace = Workspace(root=root, run=uuid.uuid4().hex)
        state = _State(run=workspace.run, created=created)
        workspace.replace(state_file, msgspec.json.encode(state))
        try:
            _furnish(workspace)
            yield workspace
        finally:
            _undo(root, workspace.run)
            _remove_created(state_file, created)
    finally:
        os.close(lock)


def clean_up_stale(parent: Path, prefix: str) -> None:
    """Remove the folders `parent`/`prefix`* of runs that were killed; leave all others alone."""
    for state_file in parent.glob(f"{prefix}*/{STATE}"):
        if state_file.parent.is_symlink():
            continue
        with contextlib.suppress(DirectoryRefused), occupied(state_file.parent):
            pass


def _check_length(root: Path) -> None:
    longest = max(
        (Workspace(root=root, run="").keeper_socket, Workspace(root=root, run="").provider_socket),
        key=lambda path: len(os.fsencode(path)),
    )
    excess = len(os.fsencode(longest)) + _HIDDEN - _MAX_SOCKET_PATH
    if excess > 0:
        message = (
            f"{root} is too long for the sockets in it by {excess} characters; choose a folder "
            "with a shorter path"
        )
        raise DirectoryRefused(message)


def _make(root: Path) -> list[str]:
    """Make the folder and those above it; return what was not there, outermost first."""
    missing = [str(path) for path in (root, *root.parents) if not path.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{root} cannot be made ({error.strerror}); name a folder"
        raise DirectoryRefused(message) from error
    return missing[::-1]


def _lock(root: Path, created: list[str]) -> int:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        message = f"{root} is in use by another playground; stop it, or choose another folder"
        raise DirectoryRefused(message) from error
    if not root.exists() or root.stat().st_ino != os.fstat(descriptor).st_ino:
        os.close(descriptor)
        _remove_created(root / STATE, created)
        message = f"{root} was removed by a playground that has just ended; start again"
        raise DirectoryRefused(message)
    return descriptor


def _read_state(path: Path) -> _State | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_State)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        message = f"{path} is not from a playground ({error}); choose another folder"
        raise DirectoryRefused(message) from error


def _check_free(root: Path) -> None:
    taken = [name for name in (*_FOLDERS, *_FILES) if os.path.lexists(root / name)]
    if taken:
        message = f"{root} holds {', '.join(taken)} already; choose a folder without them"
        raise DirectoryRefused(message)


def _furnish(workspace: Workspace) -> None:
    for name in _FOLDERS:
        (workspace.root / name).mkdir()
    (workspace.kubelet / "pods").mkdir()
    mounts.bind_shared(workspace.kubelet)
    mounts.bind_private(workspace.keeper_socket.parent)  # what the keeper mounts there is its own


def _undo(root: Path, run: str) -> None:
    """End, unmount and remove what a run made; only without mounts its folders may be walked."""
    (root / INDEX).unlink(missing_ok=True)  # what it says is not so any more
    _detach(root)  # first, since a process that waits for a volume cannot end
    stuck = traces.end_processes(run)
    _detach(root)
    if stuck:
        message = f"processes {stuck} of a playground in {root} do not end; look at their stacks"
        raise DirectoryRefused(message)
    for name in _FOLDERS:
        if (root / name).is_symlink():
            (root / name).unlink()
        elif (root / name).exists():
            shutil.rmtree(root / name)
    for name in (*_FILES, *(f".{name}.new" for name in (*_FILES, STATE))):
        (root / name).unlink(missing_ok=True)


def _detach(root: Path) -> None:
    for name in _FOLDERS:
        mounts.detach(root / name)


def _remove_created(state_file: Path, created: list[str]) -> None:
    state_file.unlink(missing_ok=True)
    for path in reversed(created):
        with contextlib.suppress(OSError):  # somebody put something into it
            Path(path).rmdir()

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
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from csi.cli import mounts, traces
from csi.cli.errors import DirectoryRefused, SetupFailed
from csi.cli.layout import (
    CONTROL_SOCKET,
    EMULATOR_CONFIG,
    FOLDERS,
    INDEX,
    SOCKET_FOLDERS,
    Workspace,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE: Final = ".akvfs-playground"

_NAMES: Final = (*FOLDERS, *SOCKET_FOLDERS, INDEX, EMULATOR_CONFIG, CONTROL_SOCKET)


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """Content of the state file."""

    run: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    created: list[str]  # folders that did not exist, outermost first


@contextmanager
def occupied(directory: Path) -> Iterator[Workspace]:
    """Use a folder while the block runs; afterwards it is what it was, absent if it was absent.

    Raises:
        DirectoryRefused: Somebody uses it, or has files in it where ours would go.
        SetupFailed: This process may not mount.
    """
    root = directory.resolve()
    created = _make(root)
    lock = _lock(root, created)
    state_file = root / STATE
    try:
        before = _read_state(root)
        if before is not None:
            undo(Workspace(root=root, run=before.run))
            created = [*before.created, *(each for each in created if each not in before.created)]
            state_file.unlink()
        try:
            _check_free(root)
            workspace = Workspace(root=root, run=uuid.uuid4().hex)
            state = _State(run=workspace.run, created=created)
            workspace.replace(state_file, msgspec.json.encode(state))
            try:
                _furnish(workspace)
                yield workspace
            finally:
                undo(workspace)
                state_file.unlink()
        finally:
            _remove(created)
    finally:
        os.close(lock)


def used_by_run(directory: Path) -> Workspace | None:
    """Return the workspace of the run that uses a folder, or that was killed in it."""
    root = directory.resolve()
    state = _read_state(root)
    return None if state is None else Workspace(root=root, run=state.run)


def is_running(directory: Path) -> bool:
    """Return whether somebody uses a folder now, perhaps still on the way up or down."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def clean_up_stale(parent: Path, prefix: str) -> None:
    """Remove the folders `parent`/`prefix`* of runs that were killed; leave all others alone."""
    for state_file in parent.glob(f"{prefix}*/{STATE}"):
        if state_file.parent.is_symlink() or state_file.stat().st_uid != os.geteuid():
            continue  # not a run of ours
        with contextlib.suppress(DirectoryRefused), occupied(state_file.parent):
            pass


def _make(root: Path) -> list[str]:
    """Make the folder and those above it; return what was not there, outermost first."""
    missing = [str(path) for path in (root, *root.parents) if not path.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove(missing[::-1])
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
        _remove(created)
        message = f"{root} was removed by a playground that has just ended; start again"
        raise DirectoryRefused(message)
    return descriptor


def _read_state(root: Path) -> _State | None:
    path = root / STATE
    try:
        state = msgspec.json.decode(path.read_bytes(), type=_State)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (msgspec.DecodeError, OSError) as error:
        message = f"{path} is not from a playground ({error}); choose another folder"
        raise DirectoryRefused(message) from error
    return msgspec.structs.replace(
        state, created=[each for each in state.created if root.is_relative_to(each)]
    )


def _check_free(root: Path) -> None:
    taken = [name for name in _NAMES if os.path.lexists(root / name)]
    if taken:
        message = f"{root} holds {', '.join(taken)} already; choose a folder without them"
        raise DirectoryRefused(message)


def _furnish(workspace: Workspace) -> None:
    if workspace.sockets != workspace.root:
        workspace.sockets.mkdir(mode=0o700)
    for folder in _folders(workspace):
        folder.mkdir()
    (workspace.kubelet / "pods").mkdir()
    try:
        mounts.bind_shared(workspace.kubelet)
        mounts.bind_private(workspace.keeper_socket.parent)  # its mounts there are its own
    except OSError as error:
        message = f"{error.filename}: {error.strerror}; mounting takes root with CAP_SYS_ADMIN"
        raise SetupFailed(message) from error


def _folders(workspace: Workspace) -> list[Path]:
    return [
        *(workspace.root / name for name in FOLDERS),
        *(workspace.sockets / name for name in SOCKET_FOLDERS),
    ]


def undo(workspace: Workspace) -> None:
    """End, unmount and remove what a run made; only without mounts its folders may be walked."""
    workspace.index.unlink(missing_ok=True)  # what it says is not so any more
    _detach(workspace)  # first, since a process that waits for a volume cannot end
    stuck = traces.end_processes(workspace.run)
    _detach(workspace)
    if stuck:
        message = f"processes {stuck} of a playground do not end; look at /proc/PID/stack"
        raise DirectoryRefused(message)
    for folder in _folders(workspace):
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
    for folder in {workspace.root, workspace.sockets}:
        for name in (INDEX, EMULATOR_CONFIG, CONTROL_SOCKET, STATE):
            (folder / f".{name}.new").unlink(missing_ok=True)
            if name != STATE:
                (folder / name).unlink(missing_ok=True)
    if workspace.sockets != workspace.root:
        _remove([str(workspace.sockets)])


def _detach(workspace: Workspace) -> None:
    for folder in _folders(workspace):
        mounts.detach(folder)


def _remove(folders: list[str]) -> None:
    """Remove folders that are empty, the innermost first."""
    for path in reversed(folders):
        with contextlib.suppress(OSError):  # somebody put something into it
            Path(path).rmdir()

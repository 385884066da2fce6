"""A snapshot as files on a tmpfs, in the layout of the reference driver's AtomicWriter.

::

    ..2026_01_31_12_00_00.x1y2z3/   what is shown, never changed after it was written
        dir/key
        password
    ..data -> ..2026_01_31_12_00_00.x1y2z3
    dir -> ..data/dir
    password -> ..data/password

A generation is written beside the shown one and appears by one rename of ``..data``. Every step may
find its work done, or half done by a predecessor that was killed. A file system that the reference
driver wrote is taken over as it is.
"""

import contextlib
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from fusefs import sandbox
from fusefs.emptying import empty
from fusefs.plan import DATA_LINK, DATA_LINK_NEXT
from fusefs.snapshot import DIRECTORY_MODE, FileEntry, Snapshot
from fusefs.tree import check_tree

# What the child that writes needs, being nobody: to make files where only root may, to give them to
# root and the pod's group, and to remove root's names where the directory is sticky (the root of
# the reference's tmpfs is).
CAPABILITIES: Final = (sandbox.CAP_CHOWN, sandbox.CAP_DAC_OVERRIDE, sandbox.CAP_FOWNER)
_RESERVED: Final = ".."  # how names begin that no file of a volume may have
_STAMP: Final = "..%Y_%m_%d_%H_%M_%S."


def write(snapshot: Snapshot, root: Path) -> None:
    """Make `root`, which nobody else writes to, show `snapshot`.

    Raises:
        InvalidTree: The snapshot's paths are not those of a volume.
        OSError: No room. What was shown is shown still.
    """
    check_tree(list(snapshot.files))
    shown = _shown(root)
    _remove_others(root, shown)
    if shown is None or not _holds(root / shown, snapshot):
        shown = _write_beside(root, snapshot)
        _swing(root, shown)
    names = {path.partition("/")[0] for path in snapshot.files}
    _link(root, names)
    _unlink_others(root, names)
    _remove_others(root, shown)
    os.chown(root, 0, snapshot.directories[""].gid)


def _shown(root: Path) -> str | None:
    """Return the directory that ``..data`` names, None when it names none of ours."""
    try:
        name = os.readlink(root / DATA_LINK)
    except OSError:  # absent, or no link
        return None
    if "/" in name or name == _RESERVED or not name.startswith(_RESERVED):
        return None
    return name if _is_directory(root / name) else None


def _holds(directory: Path, snapshot: Snapshot) -> bool:
    """Return whether `directory` holds exactly what `snapshot` does: bytes, modes and owners."""
    files: set[str] = set()
    directories = {""}
    for folder, folders, names in os.walk(directory):
        below = Path(folder).relative_to(directory)
        directories.update(str(below / name) for name in folders)
        files.update(str(below / name) for name in names)
    return (
        files == snapshot.files.keys()
        and directories == snapshot.directories.keys()
        and all(_is_same(directory / entry.path, entry, snapshot) for entry in snapshot.entries())
    )


def _is_same(path: Path, entry: FileEntry, snapshot: Snapshot) -> bool:
    found = path.lstat()
    wanted = (stat.S_IFREG | entry.mode, entry.uid, entry.gid, entry.size)
    return (found.st_mode, found.st_uid, found.st_gid, found.st_size) == wanted and (
        path.read_bytes() == snapshot.content(entry.path)
    )


def _write_beside(root: Path, snapshot: Snapshot) -> str:
    """Write the files into a new directory, and return its name."""
    fresh = Path(tempfile.mkdtemp(prefix=time.strftime(_STAMP, time.gmtime()), dir=root))
    try:
        for directory in snapshot.directories.values():
            if directory.path:
                (fresh / directory.path).mkdir()
            (fresh / directory.path).chmod(DIRECTORY_MODE)
            os.chown(fresh / directory.path, 0, directory.gid)
        for entry in snapshot.entries():
            _write_file(fresh / entry.path, entry, snapshot)
    except OSError:
        _remove(fresh)
        raise
    return fresh.name


def _write_file(path: Path, entry: FileEntry, snapshot: Snapshot) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0)
    try:
        snapshot.copy_to(fd, entry)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        os.fchmod(fd, entry.mode)
        os.fchown(fd, entry.uid, entry.gid)
    finally:
        os.close(fd)


def _swing(root: Path, shown: str) -> None:
    """Let ``..data`` name another directory: the one step that every reader sees at once."""
    _remove(root / DATA_LINK_NEXT)
    _symlink(root / DATA_LINK_NEXT, shown)
    if _is_directory(root / DATA_LINK):  # somebody's; a link cannot take its place
        _remove(root / DATA_LINK)
    (root / DATA_LINK_NEXT).rename(root / DATA_LINK)


def _link(root: Path, names: set[str]) -> None:
    for name in names:
        target = f"{DATA_LINK}/{name}"
        try:
            if os.readlink(root / name) == target:
                continue
        except OSError:  # absent, or no link
            pass
        _remove(root / name)
        _symlink(root / name, target)


def _unlink_others(root: Path, names: set[str]) -> None:
    """Remove the links to files that are shown no longer. What others put there stays."""
    for name in set(os.listdir(root)) - names:
        with contextlib.suppress(OSError):  # no link
            if os.readlink(root / name).startswith(f"{DATA_LINK}/"):
                (root / name).unlink()


def _remove_others(root: Path, shown: str | None) -> None:
    """Remove generations that are not shown, whole or half written."""
    for name in os.listdir(root):
        if name.startswith(_RESERVED) and name not in (DATA_LINK, shown):
            _remove(root / name)


def _symlink(path: Path, target: str) -> None:
    path.symlink_to(target)
    os.lchown(path, 0, 0)


def _remove(path: Path) -> None:
    """Remove whatever is at `path`, without following links or crossing mounts."""
    if not _is_directory(path):
        path.unlink(missing_ok=True)
        return
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        empty(directory)
    finally:
        os.close(directory)
    path.rmdir()


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False

"""What takes minutes to make is made once, in the user's cache folder.

An entry is a folder whose name says what it was made from. It is made under a hidden name, under a
lock, and renamed when it is complete, so an interrupted run leaves nothing that looks finished.
Entries that nobody has used for two months go; of some kinds only the newest few are kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNUSED_S: Final = 60 * 24 * 3600


def say(line: str) -> None:
    """Tell whoever waits what is being done."""
    print(f"==> {line}", file=sys.stderr, flush=True)


def folder() -> Path:
    """Return this project's cache folder, which is there afterwards."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base, "akvfs", "cluster")
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*parts: bytes | str) -> str:
    """Return a short name for what an entry is made from."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8))
        hasher.update(data)
    return hasher.hexdigest()[:12]


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of one name against every other process and thread."""
    with (folder() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kept(name: str, make: Callable[[Path], None], *, most: int | None = None) -> Path:
    """Return the entry of this name, after making it if it is not there.

    Args:
        name: Of the folder, with a digest of what it is made from.
        make: Fills an empty folder; what it raises is passed on and nothing is kept.
        most: How many entries of the kind are kept: those that were used last.
    """
    entry = folder() / name
    with locked(name):
        for unfinished in folder().glob(f".{name}.*.unfinished"):
            shutil.rmtree(unfinished)
        if not entry.exists():
            hidden = tempfile.mkdtemp(prefix=f".{name}.", suffix=".unfinished", dir=folder())
            Path(hidden).chmod(0o755)
            make(Path(hidden))
            Path(hidden).rename(entry)
    os.utime(entry)
    _forget(name.partition("-")[0], most)
    return entry


def _forget(kind: str, most: int | None) -> None:
    """Remove entries of a kind that nobody has asked for in a long time, or that are too many."""
    oldest = time.time() - UNUSED_S
    entries = sorted(folder().glob(f"{kind}-*"), key=lambda entry: entry.stat().st_mtime)
    excess = 0 if most is None else max(0, len(entries) - most)
    for number, entry in enumerate(entries):
        if number < excess or entry.stat().st_mtime < oldest:
            shutil.rmtree(entry)

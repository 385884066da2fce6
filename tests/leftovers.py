"""What a test session may have left behind: mounts, processes, threads.

Each function only looks and returns lines that a person can act on; `conftest.py` decides. The
process search does not depend on parentage, because what a test forgets is usually an orphan: every
program started during the session inherits a marker in its environment.
"""

from __future__ import annotations

import os
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MARKER: Final = "AKVFS_TEST_SESSION"

# Threads that libraries keep for reuse; trio's end by themselves after ten idle seconds.
POOLED_THREADS: Final = ("Trio thread", "pytest_timeout")


def mark_environment() -> str:
    """Put a new marker into this process's environment and return it."""
    marker = uuid.uuid4().hex
    os.environ[MARKER] = marker
    return marker


def mounts_of_ours(mountinfo: str) -> list[str]:
    """Return the lines of a mountinfo text that name this project as type, source or path."""
    return [line for line in mountinfo.splitlines() if "akvfs" in line]


def left_mounts(before: Iterable[str]) -> list[str]:
    """Return our mounts in this namespace that were not there at the start."""
    known = set(before)
    now = mounts_of_ours(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    return [f"mount: {line}" for line in now if line not in known]


def left_processes(marker: str) -> list[str]:
    """Return every process that carries the marker, this one excepted."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue  # ended meanwhile, or not ours to look at
        if wanted in environment:
            found.append(f"process: {folder.name} {command}")
    return found


def left_children() -> list[str]:
    """Return the children of this process, which include those forked without a new program."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    return [f"child: {pid}" for pid in listed]


def left_threads() -> list[str]:
    """Return the threads that were started and not joined, pools of libraries excepted."""
    return [
        f"thread: {thread.name}"
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.name.startswith(POOLED_THREADS)
    ]

"""What a run leaves in the system while it lives: processes, mounts, sockets.

Every program of a run inherits a marker in its environment, and so do the workers that the keeper
forks. It finds exactly what the run started, orphans included, and survives the run's own death.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from csi.cli import mounts

if TYPE_CHECKING:
    from csi.cli.layout import Workspace

MARKER: Final = "AKVFS_RUN"

_END_S: Final = 10.0
_LOOK_S: Final = 0.02


def processes(run: str) -> list[int]:
    """Return the processes that carry the marker of `run`, this one excepted."""
    wanted = f"{MARKER}={run}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # ended meanwhile
        if wanted in environment and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def end_processes(run: str) -> list[int]:
    """Kill the processes of `run`; return those that are there after all, in a system call."""
    deadline = time.monotonic() + _END_S
    while found := processes(run):
        for pid in found:
            _kill(pid, run)
        if time.monotonic() > deadline:
            return found
        time.sleep(_LOOK_S)
    return []


def sockets(directory: Path) -> list[str]:
    """Return the sockets whose paths lie in `directory`, also those without a file any more."""
    lines = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    paths = (line.split(maxsplit=7)[7] for line in lines if line.count(" /"))
    return sorted({path for path in paths if path.startswith(f"{directory}/")})


def left(workspace: Workspace) -> list[str]:
    """Return a line for everything of a run that is still there; none is what is wanted."""
    folders = sorted({workspace.root, workspace.sockets})
    return [
        *(f"process {pid}" for pid in processes(workspace.run)),
        *(f"mount {mount.target}" for folder in folders for mount in mounts.at_or_below(folder)),
        *(f"socket {path}" for folder in folders for path in sockets(folder)),
        *(f"folder {folder}" for folder in folders if folder.exists()),
    ]


def _kill(pid: int, run: str) -> None:
    """Kill one process, unless its number went to another one since it was found."""
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if pid in processes(run):
            signal.pidfd_send_signal(held, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(held)

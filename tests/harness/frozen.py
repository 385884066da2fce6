"""Volumes that are frozen: how they come to it, and what is seen of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.kubelet import KubeletRoot
    from harness.programs import Program

ANOTHER_UID: Final = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
NEW_NAMESPACE: Final = ("unshare", "--mount", "--propagation", "private")
_WALK: Final = (Path(__file__).parent / "walk.py").read_text(encoding="utf-8")


def look(target: Path, prefix: Sequence[str] = ()) -> dict[str, str]:
    """Return everything that a program of its own sees in `target`."""
    command = [*prefix, sys.executable, "-I", "-c", _WALK]
    run = subprocess.run(command, cwd=target, stdout=subprocess.PIPE, timeout=20, check=True)
    seen: dict[str, str] = json.loads(run.stdout)
    return seen


def holders(connection: int) -> list[str]:
    """Return every descriptor of a FUSE connection that any process holds."""
    found = []
    for fdinfo in Path("/proc").glob("[0-9]*/fdinfo/*"):
        try:
            lines = fdinfo.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        if f"fuse_connection:\t{connection}" in lines:
            found.append(str(fdinfo))
    return found


def connection_of(kubelet: KubeletRoot) -> int:
    """Return the number of the only connection that is mounted."""
    (mount,) = [mount for mount in kubelet.mounts() if mount.is_ours]
    return int(mount.device.partition(":")[2])


async def freeze(keeper: Program) -> None:
    """Let the keeper freeze all volumes and end."""
    os.kill(keeper.pid, signal.SIGUSR1)
    with trio.fail_after(20):
        while not keeper.ended():
            await trio.sleep(0.01)

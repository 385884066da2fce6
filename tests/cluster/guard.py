"""Runs a node's machine, and outlives whoever wants it: afterwards nothing is left to clean.

Started as `python -m cluster.guard FOLDER` with the environment of `machine.sh`. It prints one
line, a JSON object with the PID 1 of the machine and its cgroups, and then waits for its standard
input to end, which also happens when the process that holds it is killed. Then it ends the machine
and removes cgroups and FOLDER; if what it read was `keep`, FOLDER stays, for the next boot.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster import cgroups

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPT: Final = Path(__file__).with_name("machine.sh")
READY: Final = b"ready\n"
KEEP: Final = b"keep\n"


def main() -> int:
    """Guard one machine from its start to its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the machine ends with its owner, not with a key
    folder = Path(sys.argv[1])
    groups = cgroups.create(f"{cgroups.PREFIX}{os.getpid()}")
    started, said = False, b""
    try:
        with _machine(groups) as machine:
            try:
                started = _report(machine, groups)
                if started:
                    said = sys.stdin.buffer.read()
            finally:
                machine.kill()
    finally:
        cgroups.remove(groups)
        if said != KEEP:
            shutil.rmtree(folder)
    return 0 if started else 1


def _machine(groups: Sequence[Path]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "CGROUPS": " ".join(map(str, groups))}
    return subprocess.Popen(
        [SCRIPT, "start"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment
    )


def _report(machine: subprocess.Popen[bytes], groups: Sequence[Path]) -> bool:
    """Tell the owner about the machine once it has booted; return whether it has."""
    if machine.stdout is None or machine.stdout.readline() != READY:
        return False
    children = Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text()
    print(json.dumps({"init": int(children), "cgroups": list(map(str, groups))}), flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())

"""`make cluster`: a node for a person, until Ctrl-C; `--prepare` only makes what a node needs."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cluster.commands import CommandFailed
from cluster.components import IMPORT_IMAGE
from cluster.machine import MachineFailed
from cluster.material import material
from cluster.node import NodeFailed, node

if TYPE_CHECKING:
    from cluster.cluster import Cluster

HELP = """
The node is ready ({seconds:.0f} s). In another terminal, as root:

  export PATH={bin}:$PATH
  kubectl get pods -A      and everything else that kubectl does
  helm list -A             the same with helm
  node                     a shell on the node, or: node COMMAND
  node-image FILE          give the node an image (a docker-archive)

Its images are localhost/reader:1 (a Debian with Python) and what you give it. Logs are in
{logs}.

Ctrl-C ends it; nothing is left.
"""


def main() -> int:
    """Run a node until a person has had enough."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    parser.add_argument("--prepare", action="store_true", help="make what a node needs, no more")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.exit(2, "a node needs root, to make namespaces (run: sudo make cluster)\n")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        needed = material()
        if arguments.prepare:
            return 0
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="akvfs-"))
        logs = folder / "log"
        logs.mkdir()
        with node(folder, logs=logs, material=needed) as cluster:
            commands = write_commands(folder / "bin", cluster)
            seconds = time.monotonic() - began
            print(HELP.format(seconds=seconds, bin=commands, logs=logs), flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
    except (CommandFailed, MachineFailed, NodeFailed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def write_commands(folder: Path, cluster: Cluster) -> Path:
    """Write programs that a person can call into a folder, and return it."""
    folder.mkdir()
    node = cluster.node
    command = {
        "kubectl": node.command("kubectl", '"$@"'),
        "helm": node.command("helm", '"$@"'),
        "node": node.machine.inside('"${@:-bash}"'),
        "node-image": [*node.machine.inside(*IMPORT_IMAGE), '<"$1"'],
    }
    for name, arguments in command.items():
        lines = [
            "#!/bin/sh",
            *(f"export {key}='{value}'" for key, value in node.user_environment.items()),
            f"exec {' '.join(arguments)}",
        ]
        path = folder / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.chmod(0o755)
    return folder


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

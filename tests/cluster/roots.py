"""The file systems that node and images start from: Debian's, made by debootstrap.

The base is a minimal Debian. The node's root is a layer above it with the packages that a node
needs, installed there and not on this machine, where they would start services and replace what is
in use.
"""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Final

from cluster import cache
from cluster.commands import Progress, run

SUITE: Final = "trixie"
NODE_PACKAGES: Final = (
    "containerd",
    "containernetworking-plugins",
    "etcd-server",
    "iproute2",
    "plocate",  # its updatedb walks through every mount, as agents on real nodes do
    "runc",
)
LAYER: Final = Path(__file__).parent / "layer.sh"


def base() -> Path:
    """Return a minimal Debian as a folder."""
    return cache.kept(f"debian-{SUITE}-{platform.machine()}", _debootstrap)


def node_layer() -> Path:
    """Return what the node's root has above the base."""
    below = base()

    def install(target: Path) -> None:
        cache.say(f"installing into the node's root: {' '.join(NODE_PACKAGES)}, about 30 seconds")
        run([str(LAYER), str(below), str(target), *NODE_PACKAGES], apart=True)

    key = cache.digest(below.name, LAYER.read_bytes(), *NODE_PACKAGES)
    return cache.kept(f"node-{SUITE}-{key}", install) / "layer"


def _debootstrap(target: Path) -> None:
    cache.say(f"fetching a minimal Debian {SUITE}, about 90 seconds")
    progress = Progress(cache.say)
    mirror = _mirror()
    run(
        ["debootstrap", "--variant=minbase", SUITE, str(target), *([mirror] if mirror else [])],
        apart=True,
        each_line=lambda line: progress(line.removeprefix("I: ")),
    )
    for index in (target / "var/lib/apt/lists").glob("*_*"):
        index.unlink()
    for package in (target / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()


def _mirror() -> str | None:
    """Return the mirror that this machine uses for Debian; None on another distribution."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format=$(LABEL)|$(COMPONENT)|$(REPO_URI)"],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        label, component, uri = line.split("|")
        if (label, component) == ("Debian", "main"):
            return uri
    return None

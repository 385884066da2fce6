"""What a node could leave on the machine that it ran on, and what it could change there."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from cluster.cgroups import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

# kubelet would set those of `kernel` and `vm`, the pods' bridge the last.
SETTINGS: Final = (
    "kernel/hostname",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "net/ipv4/ip_forward",
)
FOLDERS: Final = (
    "/etc/cni/net.d",
    "/etc/kubernetes",
    "/run/cni",
    "/run/containerd",
    "/run/netns",
    "/run/xtables.lock",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)


@attrs.frozen(kw_only=True)
class Host:
    """The machine outside the node, at one moment.

    Attributes:
        mounts: What is mounted, with options and propagation; but for mounts of other tests, which
            may run meanwhile.
        interfaces: Network devices.
        settings: Of the kernel.
        folders: Which of the folders that a node uses there are.
    """

    mounts: frozenset[str]
    interfaces: frozenset[str]
    settings: tuple[str, ...]
    folders: frozenset[str]


def look(folder: Path) -> Host:
    """Return how the machine is now.

    Args:
        folder: Of the node.
    """
    return Host(
        mounts=frozenset(_mounts(folder)),
        interfaces=frozenset(name for _, name in socket.if_nameindex()),
        settings=tuple(Path("/proc/sys", name).read_text(encoding="utf-8") for name in SETTINGS),
        folders=frozenset(path for path in FOLDERS if Path(path).exists()),
    )


def cgroups_of(guard: int) -> list[Path]:
    """Return the cgroups that are left of the node with this guard."""
    name = f"{PREFIX}{guard}"
    # Not by a pattern: that fails when a cgroup of somebody else goes meanwhile.
    return [Path(top, name) for top, below, _ in os.walk("/sys/fs/cgroup") if name in below]


def processes_of(guard: int) -> list[str]:
    """Return the living processes in the cgroups of a node, as pid, name and state."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{PREFIX}{guard}" in (folder / "cgroup").read_text(encoding="utf-8"):
                stat = (folder / "stat").read_text(encoding="utf-8")
                found.append(" ".join(stat.split(" ")[:3]))
        except OSError:
            continue  # ended meanwhile
    return [each for each in found if not each.endswith(" Z")]  # those only wait to be reaped


def _mounts(folder: Path) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        point = Path(line.split(" ")[4])
        foreign = "akvfs" in line or point.is_relative_to(tempfile.gettempdir())
        if point.is_relative_to(folder) or not foreign:
            yield line

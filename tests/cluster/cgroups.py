"""The node's own cgroup in each hierarchy, so that what its programs make can be found and removed.

Only the standard library is used here and in `guard`: the guard has to start at once and to last.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREFIX: Final = "akvfs-node-"
# A process that was killed leaves its cgroup a little later than its parent hears of it.
_REMOVE_TIMEOUT_S: Final = 10.0


def create(name: str) -> list[Path]:
    """Make a cgroup of this name in each hierarchy, within the limits that this process has.

    Cgroups of nodes whose guard was killed are removed on the way.
    """
    groups = []
    own, mountinfo = (Path("/proc/self", name).read_text() for name in ("cgroup", "mountinfo"))
    for parent in parents(own, mountinfo):
        _sweep(parent)
        group = parent / name
        group.mkdir()
        for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts with none of either
            if (group / setting).exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((parent / setting).read_text())
        groups.append(group)
    return groups


def remove(groups: Iterable[Path]) -> None:
    """Remove cgroups with everything below them.

    Raises:
        OSError: One of them still has processes.
    """
    deadline = time.monotonic() + _REMOVE_TIMEOUT_S
    for group in groups:
        while group.exists():
            try:
                for each in _tree(group):
                    each.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                threading.Event().wait(0.02)


def _tree(top: Path) -> list[Path]:
    """Return a cgroup and all below it, deepest first."""
    below = [path for path in top.rglob("*") if path.is_dir()]
    return sorted([top, *below], key=lambda path: -len(path.parts))


def _sweep(parent: Path) -> None:
    for group in parent.glob(f"{PREFIX}*"):
        guard = group.name.removeprefix(PREFIX)
        if not Path("/proc", guard).exists():
            with contextlib.suppress(OSError):  # of a node that ends just now: it is no hindrance
                remove([group])


def parents(own: str, mountinfo: str) -> Iterator[Path]:
    """Yield, for each hierarchy, the cgroup that the node's is made in.

    Args:
        own: This process's cgroups, as in `/proc/self/cgroup`.
        mountinfo: Its mounts, as in `/proc/self/mountinfo`.
    """
    lines = [line.split(":", 2) for line in own.splitlines()]
    for _, controllers, path in lines:
        found = _mounted(set(controllers.split(",")), mountinfo)
        if found is None:
            continue
        mount, root = found
        inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
        # In version 2 only a cgroup without processes may hand controllers down, so the node's is
        # made beside ours and not in it. Version 1 has no such rule, and a version 2 hierarchy
        # beside it has no controllers.
        beside = len(lines) == 1 and not controllers and inside != Path()
        yield mount / (inside.parent if beside else inside)


def _mounted(controllers: set[str], mountinfo: str) -> tuple[Path, str] | None:
    """Return where the hierarchy of these controllers is mounted, and what is its root there."""
    kind = "cgroup2" if controllers == {""} else "cgroup"
    for line in mountinfo.splitlines():
        before, after = line.split(" - ", 1)
        _, _, _, root, mount, *_ = before.split(" ")
        found, _, options = after.split(" ", 2)
        if found == kind and (kind == "cgroup2" or controllers <= set(options.split(","))):
            return Path(mount), root
    return None

"""Whether something grows: samples of what processes have, and the slope of each."""

from __future__ import annotations

import contextlib
import os
import statistics
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from harness.belongings import family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UNIT_S: Final = 600.0  # slopes are of ten minutes
_MIB: Final = 1 << 20
_STORES: Final = ("akvfs-snapshot", "secretmem")  # memory files with a generation
_ANONYMOUS: Final = ("Pss_Anon:", "Pss_Shmem:")
_FUSE_INODE: Final = "fuse_inode"
Line = tuple[str, str]
_GENERATIONS: Final[Line] = ("all", "generations")


@attrs.define
class Samples:
    """What was counted, by whom and of what; each sample with its time."""

    _lines: dict[Line, list[tuple[float, float]]] = attrs.field(factory=dict)

    def take(self, now: float, processes: Mapping[str, int]) -> None:
        """Count what processes have, each by its role, and all with their descendants together.

        One that is being replaced is left out this time.
        """
        everybody = sorted({one for pid in processes.values() for one in family(pid)})
        found: dict[Line, float] = {}
        with contextlib.suppress(OSError):
            for role, pid in processes.items():
                found[role, "descriptors"] = _other_descriptors(pid)
                found[role, "MiB"] = _resident_mib(pid)
            found["all", "MiB"] = sum(map(_proportional_mib, everybody))
            found[_GENERATIONS], found["all", "MiB of them"] = generations(everybody)
            found["node", "FUSE inodes, MiB"] = _fuse_inodes_mib()
            for line, value in found.items():
                self._lines.setdefault(line, []).append((now, value))

    def growing(self) -> list[str]:
        """Return the lines that grow by one in ten minutes, or more.

        How many generations there are depends on how fast they come: see what is left of them.
        """
        return [
            " ".join(line)
            for line, points in self._lines.items()
            if line != _GENERATIONS and slope(points) >= 1
        ]

    def table(self) -> str:
        """Return a line for each."""
        lines = [f"{'':34} samples    first     last  in 10 min"]
        for line, points in self._lines.items():
            first, last = points[0][1], points[-1][1]
            name = ", ".join(line)
            lines.append(
                f"{name:34} {len(points):7} {first:8.1f} {last:8.1f} {slope(points):+10.2f}"
            )
        return "\n".join(lines)


def slope(points: Iterable[tuple[float, float]]) -> float:
    """Return by how much something grows in ten minutes: the median over all pairs of samples.

    So a process that has just been started anew, and is small, does not count for much.
    """
    pairs = combinations(points, 2)
    slopes = [(later - before) / (then - when) for (when, before), (then, later) in pairs]
    return statistics.median(slopes) * UNIT_S if slopes else 0.0


def _links(pid: int) -> dict[str, str]:
    """Return the descriptors of a process, and what they lead to."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found[str(path)] = os.readlink(path)
    return found


def _is_store(link: str) -> bool:
    return any(name in link for name in _STORES)


def _other_descriptors(pid: int) -> int:
    """Return how many descriptors there are beside those of generations, which come and go."""
    return sum(not _is_store(link) for link in _links(pid).values())


def generations(pids: Iterable[int]) -> tuple[int, float]:
    """Return how many memory files of generations there are, and what they take."""
    sizes: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for path, link in _links(pid).items():
                if _is_store(link):
                    with contextlib.suppress(FileNotFoundError):
                        status = os.stat(path)
                        sizes[status.st_ino] = status.st_size
    return len(sizes), sum(sizes.values()) / _MIB


def _resident_mib(pid: int) -> float:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / _MIB


def _proportional_mib(pid: int) -> float:
    """Return the memory of a process that is no file's, what it shares divided by who shares it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a child that has ended
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        parts = [line.split()[1] for line in lines if line.startswith(_ANONYMOUS)]
        return sum(map(int, parts)) / 1024
    return 0.0


def _fuse_inodes_mib() -> float:
    """Return what the kernel keeps of nodes, of all FUSE file systems together."""
    for line in Path("/proc/slabinfo").read_text(encoding="ascii").splitlines():
        name, active, _, size = line.split()[:4]
        if name == _FUSE_INODE:
            return int(active) * int(size) / _MIB
    return 0.0

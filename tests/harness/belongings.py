"""What programs have: descriptors, mounts and processes, counted before and after."""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FUSE: Final = "/dev/fuse"
SETTLED_S: Final = 15.0  # longer than a superseded generation is kept


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and not reaped."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return list(map(int, found.split()))


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found += children(one)
    return found


def descriptors(pid: int, link: str = "") -> int:
    """Return how many descriptors a process has open, of all or of one file."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(path))
    return sum(1 for name in found if not link or name == link)


def belongings(below: Path, programs: Iterable[int]) -> dict[str, int]:
    """Count what programs with their descendants have, this process's descriptors included.

    Mounts are those below a directory, in any of their namespaces.
    """
    gc.collect()  # what this process has forgotten to close is not what is looked for
    everybody = [one for pid in programs for one in family(pid)]
    mounts = set[str]()
    held = descriptors(os.getpid())
    for pid in everybody:
        with contextlib.suppress(OSError):
            held += descriptors(pid)
            table = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="replace")
            mounts.update(line.split()[0] for line in table.splitlines() if f"{below}/" in line)
    return {"descriptors": held, "mounts": len(mounts), "processes": len(everybody)}


async def leaked(before: Mapping[str, int], count: Callable[[], Mapping[str, int]]) -> list[str]:
    """Return what there is more of than before, once it has had time to go."""
    more: dict[str, int] = {}
    with trio.move_on_after(SETTLED_S):
        while True:
            more = {name: now - before[name] for name, now in count().items()}
            if not any(more.values()):
                return []
            await trio.sleep(0.05)
    return [f"{number:+d} {name}" for name, number in more.items() if number]

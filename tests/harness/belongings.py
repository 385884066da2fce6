"""What programs have: descriptors, mounts and processes, counted before and after."""

from __future__ import annotations

import contextlib
import gc
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FUSE: Final = "/dev/fuse"
_NUMBER: Final = re.compile(r"[0-9]+|:\[[0-9]+\]| \(deleted\)")
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


def open_files(pid: int) -> list[str]:
    """Return what the descriptors of a process lead to, without what tells two of a kind apart."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.append(_NUMBER.sub("", os.readlink(path)))
    return found


def descriptors(pid: int, link: str = "") -> int:
    """Return how many descriptors a process has open, of all or of one file."""
    found = open_files(pid)
    return found.count(link) if link else len(found)


def belongings(below: Path, programs: Iterable[int]) -> Counter[str]:
    """Count what programs with their descendants have, this process's descriptors included.

    Mounts are those below a directory, in any of their namespaces.
    """
    gc.collect()  # what this process has forgotten to close is not what is looked for
    everybody = [one for pid in programs for one in family(pid)]
    mounts = set[str]()
    found = Counter(open_files(os.getpid()))
    for pid in everybody:
        with contextlib.suppress(OSError):
            found.update(open_files(pid))
            table = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="replace")
            mounts.update(line.split()[0] for line in table.splitlines() if f"{below}/" in line)
    return found + Counter(mounts=len(mounts), processes=len(everybody))


async def leaked(before: Counter[str], count: Callable[[], Counter[str]]) -> list[str]:
    """Return what there is more of than before, or less, once it has had time to go."""
    now = before
    with trio.move_on_after(SETTLED_S):
        while (now := count()) != before:
            await trio.sleep(0.05)
    return [
        f"{now[name] - before[name]:+d} {name}"
        for name in sorted({*now, *before})
        if now[name] != before[name]
    ]

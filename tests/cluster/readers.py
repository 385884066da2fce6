"""Readers in pods: four programs that open, read and close files as long as they live.

Each says ten times a second how that went (`images/reader/reader.py` tells the form), so afterwards
a scenario can ask about just the time in which something happened.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import attrs

from cluster.addresses import READER_IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cluster.api import Thing
    from cluster.cluster import Cluster

PROGRAMS: Final[Mapping[str, Sequence[str]]] = {
    "python": ("python3", "/readers/reader.py"),
    "go": ("/readers/reader-go",),
    "c": ("/readers/reader-c",),
    "shell": ("sh", "/readers/reader.sh"),
}


@attrs.frozen(kw_only=True)
class Reads:
    """What a reader met within a time.

    Attributes:
        attempts: How often it opened, read and closed a file.
        errors: How often that failed.
        longest_gap_ms: The longest time between two reads that did not fail.
        last_error: The last failure, or "-".
    """

    attempts: int
    errors: int
    longest_gap_ms: int
    last_error: str


def now_ms() -> int:
    """Return the time as the readers tell it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def containers(paths: Sequence[str], mounts: Sequence[Thing]) -> list[Thing]:
    """Return four containers, named as `PROGRAMS`, that read the paths.

    Args:
        paths: What to read, in turn.
        mounts: The `volumeMounts` of each.
    """
    return [
        {
            "name": name,
            "image": READER_IMAGE,
            "command": [*command, *paths],
            "volumeMounts": list(mounts),
        }
        for name, command in PROGRAMS.items()
    ]


def reads(
    cluster: Cluster,
    pod: str,
    program: str,
    *,
    begin_ms: int,
    end_ms: int,
    namespace: str = "default",
) -> Reads:
    """Return what one of a pod's readers met between two times, to a tenth of a second."""
    log = cluster.log(pod, program, namespace=namespace)
    return total(log.splitlines(), begin_ms=begin_ms, end_ms=end_ms)


def total(lines: Iterable[str], *, begin_ms: int, end_ms: int) -> Reads:
    """Add up what a reader said, from the first line that touches the time to the last."""
    attempts = errors = longest = 0
    message = "-"
    last_end = 0
    for line in lines:
        end, tried, failed, gap, problem = line.split(" ", 4)
        if int(end) >= begin_ms and last_end <= end_ms:
            attempts += int(tried)
            errors += int(failed)
            longest = max(longest, int(gap))
            message = message if problem == "-" else problem
        last_end = int(end)
    return Reads(attempts=attempts, errors=errors, longest_gap_ms=longest, last_error=message)

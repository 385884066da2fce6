"""A hostile pod, and how its neighbour fares."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from harness.outcomes import percentile

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE: Final = Path(__file__).parent / "hostilepod.py"
READS: Final = 300
PAUSE_S: Final = 0.003
MOST_TIMES_SLOWER: Final = 3.0


@contextmanager
def hostile_pod(kind: str, target: Path) -> Iterator[None]:
    """Run a hostile pod; it is in full swing when this begins, and gone when it ends."""
    command = [sys.executable, str(HOSTILE), kind, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"in full swing\n"
            yield
            assert process.poll() is None, "the hostile pod has ended by itself"
        finally:
            os.killpg(process.pid, 9)


async def slowest_reads(target: Path) -> float:
    """Return the 99th percentile of the time that a read of a whole file takes."""
    times = []
    for _ in range(READS):
        began = time.monotonic()
        (target / "user").read_bytes()
        times.append(time.monotonic() - began)
        await trio.sleep(PAUSE_S)
    return percentile(times, 99)

"""Readers under load: separate processes that judge each read against what was acknowledged."""

from __future__ import annotations

import json
import mmap
import os
import struct
import subprocess
import sys
import time
from bisect import bisect_left, bisect_right
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HERE: Final = Path(__file__).parent
_END_S: Final = 20.0


@attrs.frozen(kw_only=True)
class Report:
    """What one reader saw. Times are those of the monotonic clock, in seconds."""

    reader: str
    begun: list[float]
    ended: list[float]
    errors: dict[str, int]
    torn: int
    stale: int
    size_wrong: int
    examples: list[str]

    @property
    def faults(self) -> dict[str, int]:
        """Everything that must not happen, by name."""
        kinds = {"torn": self.torn, "stale": self.stale, "size wrong": self.size_wrong}
        return {name: count for name, count in {**kinds, **self.errors}.items() if count}

    @property
    def longest_gap_s(self) -> float:
        """The longest time between two completed reads."""
        return max((later - earlier for earlier, later in pairwise(self.ended)), default=0.0)

    def longest_gap_around(self, moment: float, before_s: float, after_s: float) -> float:
        """Return the longest time between two completed reads that touches a span of time."""
        first = max(0, bisect_left(self.ended, moment - before_s) - 1)
        last = bisect_right(self.ended, moment + after_s) + 1
        around = pairwise(self.ended[first:last])
        return max((later - earlier for earlier, later in around), default=0.0)

    def begun_around(self, moment: float, within_s: float) -> int:
        """Return how many reads began within that time before or after `moment`."""
        return sum(abs(begun - moment) <= within_s for begun in self.begun)


@attrs.frozen
class Load:
    """Running readers, and the page that tells them what was acknowledged."""

    _page: mmap.mmap
    _readers: dict[str, subprocess.Popen[bytes]]
    _directory: Path

    def acknowledge(self, generation: int) -> None:
        """Let the readers expect at least this generation from now on."""
        struct.pack_into("=Q", self._page, 0, generation)

    def stop(self) -> list[Report]:
        """End the readers and return their reports."""
        self._page[8] = 1
        reports = []
        for name, process in self._readers.items():
            assert process.wait(timeout=_END_S) == 0, f"reader {name} failed"
            found = json.loads((self._directory / f"{name}.json").read_text(encoding="utf-8"))
            reports.append(Report(reader=name, **found))
        return reports


def _program(kind: str, directory: Path) -> list[str]:
    """Return the command of a kind of reader, compiled where it has to be."""
    built = directory / f"{kind}reader"
    match kind:
        case "c":
            _build("cc", "-O2", "-Wall", "-Werror", "-o", built, _HERE / "creader.c")
        case "go":
            _build("go", "build", "-o", built, _HERE / "goreader.go")
        case "sh":
            return [str(_HERE / "shellreader.sh")]
        case _:
            return [sys.executable, str(_HERE / "reader.py"), kind]
    return [str(built)]


def _build(*command: str | Path) -> None:
    # Go compiles its library the first time; it needs no module for one file.
    environment = os.environ | {"GO111MODULE": "off"}
    subprocess.run(command, check=True, timeout=120, env=environment)


@contextmanager
def load(directory: Path, readers: dict[str, tuple[str, Path]]) -> Iterator[Load]:
    """Start readers, each of a kind on a path; they are ended in any case.

    The kinds `live`, `pair` and `list` are Python, `c`, `go` and `sh` read one file.
    """
    directory.mkdir()
    shared = directory / "shared"
    shared.write_bytes(bytes(mmap.PAGESIZE))
    with shared.open("r+b") as file:
        page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    programs = {kind: _program(kind, directory) for kind, _ in readers.values()}
    try:
        for name, (kind, path) in readers.items():
            arguments = [str(path), str(shared), str(directory / f"{name}.json")]
            if kind == "sh":
                arguments.append(str(round((time.monotonic() - time.time()) * 1e6)))
            processes[name] = subprocess.Popen([*programs[kind], *arguments])
        yield Load(page, processes, directory)
    finally:
        for process in processes.values():
            process.kill()
            process.wait(timeout=_END_S)
        page.close()


def summary(reports: Sequence[Report]) -> str:
    """Return a line for each reader."""
    return "\n".join(
        f"{report.reader}: {len(report.begun)} reads, faults {report.faults or 'none'}, "
        f"longest gap {report.longest_gap_s * 1e3:.1f} ms {' '.join(report.examples)}"
        for report in reports
    )

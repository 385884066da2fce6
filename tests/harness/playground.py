"""A running `akvfs playground`, and a pod that reads from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.programs import WITH_US, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAMS: Final = ("keeper", "node", "provider", "emulator")
ANSWER_S: Final = 20.0
_READER: Final = Path(__file__).with_name("secretreader.py")


class Playground:
    """One run; a context manager's `with` ends it by SIGTERM."""

    def __init__(self, directory: Path, log: Path) -> None:
        """Start it."""
        self.directory = directory
        self.program = Program(
            "playground", ["csi.cli", "playground", "--dir", str(directory)], log=log
        )

    def wait_until_up(self) -> None:
        """Return when it has described itself."""
        self.program.wait_until((self.directory / "playground.json").exists, "playground.json")

    def index(self) -> dict[str, Any]:
        """Return what it says about itself."""
        text = (self.directory / "playground.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        return found

    def pid(self, kind: str) -> int | None:
        """Return the process of a program, or of the worker."""
        index = self.index()
        pids = [index["pids"][kind]] if kind in PROGRAMS else [*index["workers"].values(), None]
        pid: int | None = pids[0]
        return pid

    def kill(self, kind: str, number: int) -> float:
        """Send a signal to a program; return after how many seconds the index names another."""
        before = self.pid(kind)
        assert before is not None
        os.kill(before, number)
        started = time.monotonic()
        self.wait(lambda: self.pid(kind) not in {before, None}, f"another {kind}")
        return time.monotonic() - started

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = ANSWER_S) -> None:
        """Return once `condition` is true."""
        self.program.wait_until(condition, what, timeout_s=timeout_s)

    def set(self, name: str, value: str) -> subprocess.CompletedProcess[str]:
        """Run `akvfs playground set`."""
        return akvfs("playground", "set", name, value, "--dir", str(self.directory))

    def read(self, name: str) -> str | None:
        """Return what the file of a secret holds; None when it cannot be read in time."""
        path = self.index()["secrets"][name]
        try:
            done = subprocess.run(
                ["cat", path], capture_output=True, text=True, check=False, timeout=ANSWER_S
            )
        except subprocess.TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None

    @contextmanager
    def reading(self) -> Iterator[dict[str, Any]]:
        """Read every secret over and over in a process of its own; its report is filled in."""
        command = [*WITH_US, sys.executable, str(_READER), *self.index()["secrets"].values()]
        report: dict[str, Any] = {}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
            try:
                yield report
                report.update(json.loads(reader.communicate(b"", timeout=ANSWER_S)[0]))
            finally:
                reader.kill()


def akvfs(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "csi.cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def mounts_in(directory: Path) -> list[str]:
    """Return the lines of the mount table that name a folder."""
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    return [line for line in table.splitlines() if f" {directory}/" in line]


def listing(directory: Path) -> dict[str, bytes | None]:
    """Return the files of a folder with their content, and the folders in it."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }

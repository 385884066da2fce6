"""`akvfs demo` as a whole: it verifies, it fails loudly, and it leaves nothing either way."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.playground import mounts_in
from harness.programs import Program
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

DURATION_S = 30.0
HEADINGS = (
    "Start the driver",
    "Publish",
    "Rotate",
    "File events",
    "A read held open",
    "kill -9 of the worker",
    "Unpublish",
    "The end of the driver",
)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Program]:
    """Run the demo, its folder and output in `tmp_path`."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    program = Program(
        "demo", ["csi.cli", "demo"], log=tmp_path / "log", environment={"TMPDIR": str(folder)}
    )
    with program:
        yield program
    assert list(folder.iterdir()) == []
    assert mounts_in(folder) == []
    assert processes_in(folder) == []


def processes_in(folder: Path) -> list[int]:
    """Return the processes that name a folder on their command line."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(folder) in command.read_bytes():
                found.append(int(command.parent.name))
        except OSError:
            continue  # ended meanwhile
    return found


def pod_of(folder: Path) -> int | None:
    """Return the process of the demo's pod once it has started."""
    for pid in processes_in(folder):
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"csi.cli.pod" in arguments and not arguments[0].endswith(b"setpriv"):
            return pid
    return None


def test_demo_verifies_every_step(demo: Program) -> None:
    """It exits 0 in time, plain in a pipe, with every step, its time and no failed read."""
    assert demo.ended(DURATION_S), demo.log
    assert demo.stop() == 0, demo.log
    positions = [demo.log.index(heading) for heading in HEADINGS]
    assert positions == sorted(positions)
    assert demo.log.count("for this step") == len(HEADINGS)
    assert " 0 failed, longest gap" in demo.log
    assert "no process, mount, socket or file is left" in demo.log
    assert "\x1b" not in demo.log


def test_interrupted_demo_puts_everything_back(demo: Program, tmp_path: Path) -> None:
    """Ctrl-C in the middle ends it with the shell's code for that, and leaves nothing."""
    demo.wait_until(lambda: pod_of(tmp_path / "tmp") is not None, "the pod")
    os.kill(demo.pid, signal.SIGINT)
    assert demo.ended(DURATION_S)
    assert demo.stop() == 128 + signal.SIGINT
    assert "interrupted; everything was put back" in demo.log


def test_failed_step_is_told_with_the_logs(demo: Program, tmp_path: Path) -> None:
    """A pod that dies fails the demo, which shows why, what the programs logged, and cleans up."""
    demo.wait_until(lambda: pod_of(tmp_path / "tmp") is not None, "the pod")
    pid = pod_of(tmp_path / "tmp")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert demo.ended(DURATION_S)
    assert demo.stop() == 1
    assert "this step failed" in demo.log
    assert "keeper, last lines of its log" in demo.log
    assert "Error: the pod has ended" in demo.log


def test_next_demo_cleans_up_after_a_killed_one(tmp_path: Path) -> None:
    """What a killed demo could not remove is gone after the next one."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    environment = {"TMPDIR": str(folder)}
    killed = Program("demo", ["csi.cli", "demo"], log=tmp_path / "log", environment=environment)
    with killed:
        killed.wait_until(lambda: pod_of(folder) is not None, "the pod")
        killed.kill()
    eventually(lambda: processes_in(folder) == [], "the end of its processes")
    assert mounts_in(folder)
    again = Program("demo", ["csi.cli", "demo"], log=tmp_path / "log2", environment=environment)
    with again:
        assert again.ended(DURATION_S)
        assert again.stop() == 0, again.log
    assert list(folder.iterdir()) == []
    assert mounts_in(folder) == []

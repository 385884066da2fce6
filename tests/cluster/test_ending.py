"""However a node is ended, nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import pytest

from cluster import cgroups, remains
from cluster.__main__ import write_commands
from harness.programs import WITH_US
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.cluster import Cluster

TESTS: Final = Path(__file__).parents[1]
START_TIMEOUT_S: Final = 120.0
END_TIMEOUT_S: Final = 120.0


@attrs.frozen(kw_only=True)
class Run:
    """`make cluster`, running."""

    process: subprocess.Popen[str]
    folder: Path

    def guard(self) -> int | None:
        """Return the guard's pid, once there is one."""
        pid = self.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"cluster.guard" in Path("/proc", child, "cmdline").read_bytes():
                return int(child)
        return None

    def has_started(self) -> bool:
        """Return whether a person has been told that the node is ready."""
        output = (self.folder / "output").read_text()
        assert self.process.poll() is None, output
        return "The node is ready" in output

    def left_of(self, guard: int) -> list[object]:
        """Return what there is of processes, cgroups and files."""
        return [
            *(["the guard"] if Path("/proc", str(guard)).exists() else []),
            *remains.processes_of(guard),
            *remains.cgroups_of(guard),
            *self.folder.glob("akvfs-*"),
        ]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Provide a run that has a guard; it is reaped in any case."""
    with running(tmp_path) as started:
        eventually(
            lambda: started.guard() is not None, "there is a guard", timeout_s=START_TIMEOUT_S
        )
        yield started


@contextmanager
def running(folder: Path) -> Iterator[Run]:
    """Start `make cluster`'s program as a terminal would, with files below a folder."""
    with (
        (folder / "output").open("w") as output,
        subprocess.Popen(
            [*WITH_US, sys.executable, "-m", "cluster"],
            cwd=TESTS,
            env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(TESTS)},
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Run(process=process, folder=folder)
        finally:
            process.kill()


def started_guard(run: Run) -> int:
    """Return the guard's pid once the node is ready."""
    eventually(run.has_started, "the node is ready", timeout_s=START_TIMEOUT_S, pause_s=0.1)
    guard = run.guard()
    assert guard is not None
    return guard


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_node_leaves_nothing(run: Run, number: signal.Signals) -> None:
    """After Ctrl-C or a request to end, the program ends well and nothing is there."""
    before = remains.look(run.folder)
    guard = started_guard(run)
    os.killpg(run.process.pid, number)
    assert run.process.wait(END_TIMEOUT_S) == 0
    assert run.left_of(guard) == []
    assert remains.look(run.folder) == before


def test_early_end_leaves_nothing(run: Run) -> None:
    """After Ctrl-C while the node starts nothing is left, once the guard has noticed."""
    guard = run.guard()
    assert guard is not None
    os.killpg(run.process.pid, signal.SIGINT)
    run.process.wait(END_TIMEOUT_S)
    # The key may be hit before the program knows of the guard that it has just started.
    eventually(lambda: not run.left_of(guard), "nothing is left", timeout_s=END_TIMEOUT_S)


def test_killed_owner_leaves_nothing(run: Run) -> None:
    """When the program that started the node is killed, the guard ends the node and cleans up."""
    guard = started_guard(run)
    run.process.kill()
    eventually(lambda: not run.left_of(guard), "nothing is left", timeout_s=END_TIMEOUT_S)


def test_killed_guard_ends_the_node(run: Run) -> None:
    """Without its guard no process lives on, and the next node removes the empty cgroups."""
    guard = started_guard(run)
    assert remains.processes_of(guard)
    os.kill(guard, signal.SIGKILL)
    eventually(lambda: not remains.processes_of(guard), "no process lives", timeout_s=END_TIMEOUT_S)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.process.wait(END_TIMEOUT_S) == 1
    assert not Path("/proc", str(guard)).exists()
    cgroups.remove(cgroups.create(f"{cgroups.PREFIX}{os.getpid()}"))
    assert remains.cgroups_of(guard) == []


def test_person_is_given_commands(cluster: Cluster, tmp_path: Path) -> None:
    """kubectl, helm and a program on the node run from the folder that a person is told of."""
    folder = write_commands(tmp_path / "bin", cluster)

    def answer(*command: str) -> str:
        return subprocess.run(
            [folder / command[0], *command[1:]], capture_output=True, check=True, text=True
        ).stdout

    assert "node-1" in answer("kubectl", "get", "nodes")
    assert "NAMESPACE" in answer("helm", "list", "--all-namespaces")
    assert answer("node", "cat", "/etc/hostname") == "node-1\n"

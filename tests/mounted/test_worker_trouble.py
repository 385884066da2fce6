"""Workers that die or hang under a reader are replaced, and the reader gets its answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from harness.waiting import eventually

if TYPE_CHECKING:
    from harness.kubelet import KubeletRoot
    from harness.volumes import PublishedVolume

REPLACED_S: Final = 5.0
LOOK_UP: Final = """
import os, sys
try:
    os.stat(sys.argv[1])
except FileNotFoundError:
    sys.exit(0)
sys.exit(1)
"""

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def keeper_command(kubelet: KubeletRoot, keeper_socket: Path) -> list[str]:
    """Run the keeper whose workers can be made to hang."""
    return ["harness.misbehaving", str(keeper_socket), str(kubelet.path)]


def state(pid: int) -> str:
    """Return a process's state as the kernel's letter, empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def worker_of(published: PublishedVolume) -> int:
    """Return the worker that serves."""
    with trio.fail_after(5):
        while (pid := await published.worker_pid()) is None:
            await trio.sleep(0.01)
    return pid


TROUBLE: Final = {
    "killed": signal.SIGKILL,
    "crashed": signal.SIGSEGV,
    "stopped": signal.SIGSTOP,
    "spinning": signal.SIGUSR1,
    "blocked": signal.SIGUSR2,
}


@pytest.mark.parametrize("number", TROUBLE.values(), ids=TROUBLE)
async def test_worker_in_trouble_is_replaced(
    published: PublishedVolume, number: signal.Signals
) -> None:
    """Within five seconds a look-up that came too late is answered, and nothing is stuck."""
    first = await worker_of(published)
    os.kill(first, number)
    if number == signal.SIGSTOP:
        eventually(lambda: state(first) == "T", "the worker is stopped")
    began = time.monotonic()
    path = str(published.target / "nothing")
    with subprocess.Popen([sys.executable, "-c", LOOK_UP, path]) as reader:
        try:
            if number == signal.SIGUSR2:
                eventually(lambda: state(first) == "D", "the worker is blocked in the kernel")
            assert await trio.to_thread.run_sync(reader.wait, REPLACED_S) == 0
        finally:
            reader.kill()
    print(f"answered after {time.monotonic() - began:.2f} s")
    assert await worker_of(published) != first
    eventually(lambda: state(first) == "", "the first worker is gone")
    await published.rotate()
    assert (published.target / "user").read_bytes()


async def test_two_workers_in_a_row_are_replaced(published: PublishedVolume) -> None:
    """The successor of a worker that was stuck in the kernel is watched as well."""
    for number in (signal.SIGUSR2, signal.SIGSTOP, signal.SIGUSR2):
        worker = await worker_of(published)
        os.kill(worker, number)
        path = str(published.target / f"nothing-{number}")
        with subprocess.Popen([sys.executable, "-c", LOOK_UP, path]) as reader:
            try:
                assert await trio.to_thread.run_sync(reader.wait, REPLACED_S) == 0
            finally:
                reader.kill()
        eventually(lambda pid=worker: state(pid) == "", "the worker is gone")  # type: ignore[misc]
    assert (published.target / "user").read_bytes()

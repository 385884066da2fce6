"""Workers that stop, spin, crash or block in the kernel, and a reader that waits for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from harness.waiting import eventually

if TYPE_CHECKING:
    from harness.volumes import PublishedVolume

REPLACED_S: Final = 5.0
# What `harness.misbehaving` does on two of these is said there.
TROUBLE: Final = {
    "killed": signal.SIGKILL,
    "crashed": signal.SIGSEGV,
    "stopped": signal.SIGSTOP,
    "spinning": signal.SIGUSR1,
    "blocked": signal.SIGUSR2,
}
_LOOK_UP: Final = """
import os, sys
try:
    os.stat(sys.argv[1])
except FileNotFoundError:
    sys.exit(0)
sys.exit(1)
"""


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


@contextmanager
def _look_up(published: PublishedVolume, worker: int) -> Iterator[subprocess.Popen[bytes]]:
    """Let a process of its own look for a name that there is not."""
    path = str(published.target / f"nothing-{worker}-{time.monotonic_ns()}")
    with subprocess.Popen([sys.executable, "-c", _LOOK_UP, path]) as reader:
        try:
            yield reader
        finally:
            reader.kill()


def _block(published: PublishedVolume, worker: int) -> None:
    """Have requests until one comes after the signal: only then the worker blocks."""


async def replaced_after(published: PublishedVolume, number: signal.Signals) -> float:
    """Get a worker into trouble; return after how many seconds a look-up is answered.

    Another worker serves then, and the first one is gone.
    """
    # Only a worker that has answered obeys the signals of `harness.misbehaving`; a look-up that
    # finds nothing leaves nothing to release, which would come as a request of its own.
    await trio.to_thread.run_sync((published.target / f"nothing-{time.monotonic()}").exists)
    first = await worker_of(published)
    os.kill(first, number)
    if number == signal.SIGSTOP:
        eventually(lambda: state(first) == "T", "the worker is stopped")
    began = time.monotonic()
    with _look_up(published, first) as reader:
        assert await trio.to_thread.run_sync(reader.wait, REPLACED_S) == 0
    took = time.monotonic() - began
    assert await worker_of(published) != first
    eventually(lambda: state(first) == "", "the first worker is gone")
    return took

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
    seen = set[str]()
    while True:  # the first one may be answered before the worker hears of the signal
        began = time.monotonic()
        path = str(published.target / f"nothing-{first}-{began}")
        with subprocess.Popen([sys.executable, "-c", _LOOK_UP, path]) as reader:
            try:
                with trio.fail_after(REPLACED_S):
                    while reader.poll() is None:
                        seen.add(state(first))
                        await trio.sleep(0.01)
            finally:
                reader.kill()
        took = time.monotonic() - began
        assert reader.returncode == 0
        if await worker_of(published) != first:
            break
    assert "D" in seen or number != signal.SIGUSR2, f"it was to block in the kernel: {seen}"
    eventually(lambda: state(first) == "", "the first worker is gone")
    return took

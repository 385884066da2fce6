"""First process of the keeper's container: starts the keeper, and again at once when it dies.

kubelet's own restart takes up to minutes, and while no keeper runs no volume has a worker. As PID 1
it also reaps orphans; in a pod with the node's PIDs it is none, and the container's shim does that.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

log = logging.getLogger(__name__)

EXIT_HANDED_OVER: Final = 10  # a keeper whose successor, another pod's, serves everything
STABLE_S: Final = 2.0
FIRST_BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 5.0
_MOST_DOUBLINGS: Final = 16  # far past MAX_BACKOFF_S, far from the end of floats


def backoff(early_deaths: int) -> float:
    """Return how long to wait after so many deaths of a young keeper: at first not at all."""
    if early_deaths <= 1:
        return 0.0
    return min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(early_deaths - 2, _MOST_DOUBLINGS))


def supervise(command: Sequence[str]) -> int:
    """Keep `command` running until SIGTERM or SIGINT; return its exit code then.

    One that has handed everything over is not started again.
    """
    stopping = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, {*stopping, signal.SIGCHLD})
    early_deaths = 0
    while True:
        pid, started = _start(command), time.monotonic()
        code, stopped = _wait(pid, stopping)
        if code == EXIT_HANDED_OVER:
            log.info("a successor serves; idle until the end")
            return 0 if stopped else _idle(stopping)
        if stopped:
            return code
        lived = time.monotonic() - started
        early_deaths = 0 if lived >= STABLE_S else early_deaths + 1
        delay = backoff(early_deaths)
        log.error("the keeper ended with %d after %.1f s; starting in %.1f s", code, lived, delay)
        if delay and signal.sigtimedwait(stopping, delay) is not None:
            return 0


def _start(command: Sequence[str]) -> int:
    return os.posix_spawn(command[0], list(command), os.environ, setsigmask=[])


def _wait(pid: int, stopping: set[signal.Signals]) -> tuple[int, bool]:
    """Reap everything until `pid` has ended; pass a request to stop on to it."""
    stopped = False
    while True:
        number = signal.sigwait({*stopping, signal.SIGCHLD})
        if number in stopping:
            stopped = True
            os.kill(pid, signal.SIGTERM)
            continue
        code = _reap(pid)
        if code is not None:
            return code, stopped


def _idle(stopping: set[signal.Signals]) -> int:
    """Reap orphans until asked to stop."""
    while signal.sigwait({*stopping, signal.SIGCHLD}) not in stopping:
        _reap(0)
    return 0


def _reap(pid: int) -> int | None:
    """Reap every child that has ended, orphans too; return the exit code of `pid` if it is one."""
    code = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if ended == 0:
            return code
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)


def command_of_keeper(arguments: Sequence[str]) -> list[str]:
    """Return the command line of the keeper that these arguments of ours ask for.

    All keepers of a supervisor have its rank: one that is started again does not take over from
    the keeper of a pod that came later.
    """
    kept = [argument for argument in arguments if argument != "--supervise"]
    return [sys.executable, "-m", "fusefs", *kept, "--rank", str(rank())]


def rank() -> int:
    """Return what tells a process from those that were started before it, on any pod."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

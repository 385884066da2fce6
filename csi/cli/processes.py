"""Programs of ours as children: started again when they die, dead when this process dies.

The death signal belongs to the thread that starts a child, so children are started from the main
thread, by a call that does not yield. A child has a session of its own: Ctrl-C is for this process,
which ends the others in order.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import attrs
import trio

from csi.cli import traces

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

STABLE_S: Final = 10.0
GRACE_S: Final = 5.0  # for a graceful stop, before SIGKILL

_FIRST_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 2.0
_QUICK_RESTARTS: Final = 3
_TAIL_LINES: Final = 20


def backoff(early_deaths: int) -> float:
    """Return how long to wait after so many deaths in a row of a young program: at first not."""
    if early_deaths <= _QUICK_RESTARTS:
        return 0.0
    return min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** (early_deaths - _QUICK_RESTARTS - 1))


@attrs.frozen(kw_only=True)
class Program:
    """What to run.

    Attributes:
        name: As it is called in logs and in `playground.json`.
        arguments: Behind `python -m`; more than one `-m` for a program that starts another.
        environment: On top of this process's.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)


class Changes:
    """Counts changes, so that one that comes while nobody waits is not missed.

    Attributes:
        count: How many there were.
    """

    def __init__(self) -> None:
        """Nothing has changed yet."""
        self.count = 0
        self._event = trio.Event()

    def notify(self) -> None:
        """Note a change and wake those who wait for it."""
        self.count += 1
        self._event.set()
        self._event = trio.Event()

    async def wait_beyond(self, seen: int) -> int:
        """Return the count once it is not `seen` any more."""
        while self.count == seen:
            await self._event.wait()
        return self.count


class Process:
    """One child, to be waited for without a thread."""

    def __init__(self, program: Program, *, log_file: Path, run: str) -> None:
        """Start it. Standard input is empty, both outputs go to the end of `log_file`."""
        command = ["setpriv", "--pdeathsig", "KILL", "--", *python(*program.arguments)]
        with log_file.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **program.environment, traces.MARKER: run},
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(self._popen.pid)

    @property
    def pid(self) -> int:
        """Its process id; that of the program it starts in its place, too."""
        return self._popen.pid

    async def wait(self) -> int:
        """Return its exit code once it has ended; negative for a signal."""
        await trio.lowlevel.wait_readable(self._pidfd)
        return self._reap()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended is fine."""
        if self._popen.returncode is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self) -> int:
        code = self._popen.wait()  # it has ended: this does not wait
        os.close(self._pidfd)
        return code


class Supervised:
    """A program that is running, or about to run again.

    Attributes:
        pid: None while it waits to be started again.
        starts: How often it was started.
    """

    def __init__(self, program: Program, *, log_file: Path, run: str, changes: Changes) -> None:
        """Do nothing before `run`; notify `changes` of every start and end."""
        self.program = program
        self.log_file = log_file
        self.pid: int | None = None
        self.starts = 0
        self._run_marker = run
        self._changes = changes
        self._process: Process | None = None
        self._stop = trio.Event()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Run it, again and again, until `stop`: cancelling does not end it."""
        early_deaths = 0
        with trio.CancelScope(shield=True):
            while not self._stop.is_set():
                started = trio.current_time()
                code = await self._run_once()
                lived = trio.current_time() - started
                if self._stop.is_set():
                    break
                log.warning(
                    "%s ended with %d after %.1f s; starting it again",
                    self.program.name,
                    code,
                    lived,
                )
                early_deaths = 0 if lived >= STABLE_S else early_deaths + 1
                delay = backoff(early_deaths)
                if delay:
                    self._changes.notify()
                    with trio.move_on_after(delay):
                        await self._stop.wait()
        self._ended.set()

    def resume(self) -> None:
        """Let it go on if somebody stopped it (SIGSTOP); otherwise nothing happens."""
        if self._process is not None:
            self._process.send(signal.SIGCONT)

    async def stop(self, grace: float = GRACE_S) -> None:
        """End it and do not start it again."""
        self._stop.set()
        if self._process is None:
            return  # `run` has not begun
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._process.send(number)
            with trio.move_on_after(grace):
                await self._ended.wait()
                return
        log.error("%s does not end after SIGKILL", self.program.name)

    async def _run_once(self) -> int:
        process = Process(self.program, log_file=self.log_file, run=self._run_marker)
        self._process, self.pid = process, process.pid
        self.starts += 1
        self._changes.notify()
        code = await process.wait()
        self.pid = None
        return code


def tail(log_file: Path) -> list[str]:
    """Return the last lines of a log."""
    return log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]


def python(*arguments: str) -> list[str]:
    """Return a command that runs modules of ours, whatever lies in the current folder."""
    return [sys.executable, "-P", "-m", *arguments]

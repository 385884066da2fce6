"""Our programs as processes of their own: started, waited for, ended by pid, and reaped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

START_TIMEOUT_S: Final = 20.0  # imports take most of it, on two busy cores
STOP_TIMEOUT_S: Final = 15.0
PAUSE_S: Final = 0.01
# So that nothing outlives a test session that had to be killed.
WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--")
WITH_HARNESS: Final = {"PYTHONPATH": str(Path(__file__).parents[1])}  # to run a module of it
_LOG_TAIL_CHARS: Final = 4000


class ProgramFailed(AssertionError):
    """A program died, or did not do in time what it was waited for."""


class Program:
    """One run of ``python -m …`` with its output in a file; a context manager that ends it."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the program; its output is appended to `log`.

        Args:
            name: What failures call it.
            arguments: Module and arguments.
            log: Where its output goes.
            directory: Where it runs; this process's own by default.
            environment: On top of this process's.
        """
        self.name = name
        self._arguments = tuple(arguments)
        self._log = log
        self._directory = directory
        self._environment = dict(environment or {})
        self._process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process of the current run."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What all runs have written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_until(
        self, condition: Callable[[], bool], what: str, *, timeout_s: float = START_TIMEOUT_S
    ) -> None:
        """Return once `condition` is true.

        Raises:
            ProgramFailed: The program ended first, or the time was up.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.ended(PAUSE_S) and not condition():  # it may have come about just before
                self._fail(f"ended with {self._process.returncode} before: {what}")
            if time.monotonic() > deadline:
                self._fail(f"not within {timeout_s:g} s: {what}")

    def ended(self, timeout_s: float = 0.0) -> bool:
        """Return whether the program has ended, after waiting for that."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> int:
        """Ask the program to end (SIGTERM) and return its exit status; ended already is fine.

        Raises:
            ProgramFailed: It had to be killed.
        """
        if not self.ended():
            self._process.send_signal(signal.SIGTERM)
            if not self.ended(STOP_TIMEOUT_S):
                self.kill()
                self._fail(f"did not end within {STOP_TIMEOUT_S:g} s of SIGTERM")
        return self._process.returncode

    def kill(self) -> None:
        """End the program at once (SIGKILL) and reap it."""
        self._process.kill()
        self._process.wait()

    def crash(self, number: signal.Signals) -> bool:
        """End the program with a signal as of a crash; return whether the kernel wrote a core.

        It is not reaped: `restart` or `stop` comes next.

        Raises:
            ProgramFailed: It outlived the signal, or died of something else.
        """
        self._process.send_signal(number)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while (
            ended := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        ) is None:
            if time.monotonic() > deadline:
                self._fail(f"lives {STOP_TIMEOUT_S:g} s after {number.name}")
            threading.Event().wait(PAUSE_S)
        if ended.si_status != number:
            self._fail(f"ended with {ended.si_status}, not of {number.name}")
        return ended.si_code == os.CLD_DUMPED

    def restart(self) -> None:
        """Start the program again once the run before has ended."""
        self._process.wait(STOP_TIMEOUT_S)
        self._process = self._start()

    def twin(self, *, log: Path) -> Program:
        """Start the same program once more, beside this one."""
        return Program(
            self.name,
            self._arguments,
            log=log,
            directory=self._directory,
            environment=self._environment,
        )

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*WITH_US, sys.executable, "-m", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env={**os.environ, **self._environment},
            )

    def _fail(self, problem: str) -> NoReturn:
        message = f"{self.name} {problem}\n{self.log[-_LOG_TAIL_CHARS:]}"
        raise ProgramFailed(message)

"""The programs of the node as processes: started inside the machine, with their output in files."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STOP_TIMEOUT_S: Final = 20.0
_TAIL_LINES: Final = 15
_LINE_CHARS: Final = 500


class Process:
    """One program; it may run many times, and its log holds all runs.

    What is started here enters the namespaces and, for a pid namespace, forks; then the program is
    the fork, and signals go there.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]
    ) -> None:
        """Start the program.

        Args:
            name: What failures call it.
            arguments: What enters the namespaces, and the program.
            log: Its output is appended here.
            environment: The whole of it.
        """
        self.name = name
        self._arguments = list(arguments)
        self._log = log
        self._environment = dict(environment)
        self._entered = self._start()

    @property
    def running(self) -> bool:
        """Whether the program has not ended."""
        return self._entered.poll() is None

    @property
    def pid(self) -> int:
        """The program's pid, as this process sees it.

        Raises:
            ProcessLookupError: It has ended.
        """
        if not self.running:
            raise ProcessLookupError(self.name)
        pid = self._entered.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return int(children[0]) if children else pid

    @property
    def log(self) -> str:
        """What all runs have written."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def log_tail(self) -> str:
        """The last lines of the log, with the program's name."""
        lines = "\n".join(line[:_LINE_CHARS] for line in self.log.splitlines()[-_TAIL_LINES:])
        return f"--- {self.name} ({'running' if self.running else 'ended'}):\n{lines}"

    def send(self, number: signal.Signals) -> None:
        """Send the program a signal.

        Raises:
            ProcessLookupError: It has ended.
        """
        os.kill(self.pid, number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the program and return when it has ended; ended already is fine.

        Raises:
            subprocess.TimeoutExpired: It did not end.
        """
        with suppress(ProcessLookupError):
            self.send(number)
        self._entered.wait(STOP_TIMEOUT_S)

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the program and start it again."""
        self.end(number)
        self._entered = self._start()

    def reap(self) -> None:
        """Wait for a program whose machine was halted."""
        self._entered.wait(STOP_TIMEOUT_S)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )

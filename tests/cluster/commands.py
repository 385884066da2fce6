"""Running programs that make things: niced, ended with us, their output told when they fail."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# Lowest priority, since it can take minutes; and whatever ends us ends it too.
MAKING: Final = ("nice", "-n", "19", "setpriv", "--pdeathsig", "KILL", "--")
# The same with mounts and processes of its own, none of which can be left.
APART: Final = (
    *MAKING,
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"),
    *("--mount-proc", "--"),
)
_TAIL_LINES: Final = 25


class CommandFailed(Exception):
    """A program ended with an error; the message holds the end of its output."""

    def __init__(self, arguments: Sequence[str], status: int, output: str) -> None:
        """Build the message."""
        tail = "\n".join(output.splitlines()[-_TAIL_LINES:])
        super().__init__(f"{' '.join(arguments)}: exit status {status}\n{tail}")
        self.status = status
        self.output = output


def run(
    arguments: Sequence[str],
    *,
    apart: bool = False,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    each_line: Callable[[str], None] | None = None,
) -> str:
    """Run a program that makes something, and return its output (both streams).

    Args:
        arguments: Program and arguments.
        apart: In mount and process namespaces of its own.
        directory: Where it runs.
        environment: The whole of it; this process's by default.
        each_line: Told of every line as it comes.

    Raises:
        CommandFailed: It ended with an error.
    """
    lines = []
    with subprocess.Popen(
        [*(APART if apart else MAKING), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env=environment,
        text=True,
        errors="replace",
    ) as process:
        if process.stdout is not None:
            for line in process.stdout:
                lines.append(line)
                if each_line is not None:
                    each_line(line.rstrip())
    if process.returncode:
        raise CommandFailed(arguments, process.returncode, "".join(lines))
    return "".join(lines)


class Progress:
    """Says how far something long is, but not more often than a person wants to read it."""

    def __init__(self, say: Callable[[str], None], *, every_s: float = 20.0) -> None:
        self._say = say
        self._every_s = every_s
        self._began = self._said = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, line: str) -> None:
        """Say `line` if it is time to."""
        with self._lock:
            now = time.monotonic()
            if now - self._said >= self._every_s:
                self._said = now
                self._say(f"{line} ({now - self._began:.0f} s)")

    @property
    def elapsed_s(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._began

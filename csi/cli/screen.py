"""What the demo prints: steps with their time, what was verified, and why it matters."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from csi.cli.errors import StepFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_INDENT = 3
_MAX_WIDTH = 100


class Screen:
    """Prints to standard output; in colour on a terminal, plain in a pipe."""

    def __init__(self, console: Console | None = None) -> None:
        """Use `console`, or one of standard output."""
        self._console = console or Console(highlight=False)
        utf8 = self._console.encoding.lower().startswith("utf")
        self._done = "✓" if utf8 else "ok"
        self._failed = "✗" if utf8 else "FAILED"
        self._number = 0
        self._started = time.monotonic()
        self._verified = 0

    def title(self, title: str, text: str) -> None:
        """Say what this is."""
        self._console.print(Text(title, style="bold"))
        self._console.print(Text(text, style="dim"))

    @contextmanager
    def step(self, title: str, why: str) -> Iterator[None]:
        """Print a heading and, at the end, how long the step took."""
        self._number += 1
        self._console.print()
        self._console.print(Text(f"{self._number}  {title}", style="bold cyan"))
        self._print_prose(why)
        started = time.monotonic()
        try:
            yield
        except Exception:
            self._print(Text(f"{self._failed} this step failed", style="bold red"))
            raise
        self._print(Text(f"{seconds(time.monotonic() - started)} for this step", style="cyan"))

    def verify(self, claim: str, seen: str = "", *, holds: bool) -> None:
        """Print a claim that was checked.

        Raises:
            StepFailed: It does not hold.
        """
        if not holds:
            message = f"not so: {claim}" + (f"; seen: {seen}" if seen else "")
            raise StepFailed(message)
        self._verified += 1
        line = Text.assemble((self._done, "bold green"), f" {claim}")
        if seen:
            line.append(f"  {seen}", style="green")
        self._print(line)

    def command(self, line: str, output: str = "") -> None:
        """Print a command and what it printed."""
        self._print(Text(f"$ {line}", style="bold"))
        if output:
            self._print(Text(output.rstrip("\n")))

    def event(self, what: str, outcome: str) -> None:
        """Print what somebody did, and what came of it."""
        self._print(Text.assemble(("> ", "bold"), f"{what}: ", (outcome, "green")))

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table."""
        table = Table(*headings, box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
        for row in rows:
            table.add_row(*row)
        self._console.print(Padding(table, (0, 0, 0, _INDENT)))

    def interrupted(self) -> None:
        """Say that it ends early."""
        self._console.print(Text("interrupted; everything was put back", style="bold yellow"))

    def close(self) -> None:
        """Print the sum."""
        took = seconds(time.monotonic() - self._started)
        self._console.print()
        text = f"{self._done} {self._verified} claims verified in {took}"
        self._console.print(Text(text, style="bold green"))

    def _print(self, text: Text) -> None:
        """Print a few lines, indented and otherwise as they are: paths must stay whole."""
        for line in text.split("\n", allow_blank=True):
            self._console.print(Text(" " * _INDENT) + line, soft_wrap=True)

    def _print_prose(self, text: str) -> None:
        """Print a paragraph, indented and wrapped."""
        width = min(self._console.width, _MAX_WIDTH)
        self._console.print(Padding(Text(text, style="dim"), (0, 0, 0, _INDENT)), width=width)


def seconds(duration: float) -> str:
    """Return a duration in the unit that people read it in."""
    return f"{duration:.1f} s" if duration >= 1 else f"{duration * 1000:.0f} ms"

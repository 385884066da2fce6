"""The table of scenarios that a run prints at its end.

A scenario writes its row through the fixture `row`; rows travel in the reports of the tests, so
they also stand in the report that CI keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import rich.box
import rich.markup
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    import pytest

    from cluster.readers import Reads

SCENARIO: Final = "scenario"
ATTEMPTS: Final = "attempts"
ERRORS: Final = "failed reads"
GAP: Final = "longest gap ms"
REMARK: Final = "remark"
_WIDTH: Final = 150


@attrs.frozen
class Row:
    """The row of one scenario; each method may be called once for each of several events."""

    _record: Callable[[str, object], None]

    def reads(self, reads: Collection[Reads]) -> None:
        """Tell what each of the readers met during an event."""
        self._record(ATTEMPTS, sum(each.attempts for each in reads))
        self._record(ERRORS, sum(each.errors for each in reads))
        self._record(GAP, max(each.longest_gap_ms for each in reads))

    def remark(self, text: str) -> None:
        """Add what else is worth knowing, in a few words."""
        self._record(REMARK, text)


def lines(reports: Iterable[pytest.TestReport]) -> str:
    """Return the table of those tests that are scenarios, or nothing."""
    table = Table(box=rich.box.SIMPLE, title="scenarios", title_justify="left")
    table.add_column("scenario")
    for name in ("s", ATTEMPTS, ERRORS, GAP):
        table.add_column(name, justify="right")
    table.add_column(REMARK, overflow="fold")
    for report in reports:
        cells = _cells(report)
        if cells:
            table.add_row(*map(rich.markup.escape, cells))
    if not table.row_count:
        return ""
    console = Console(width=_WIDTH, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def _cells(report: pytest.TestReport) -> list[str]:
    found: dict[str, list[str]] = {}
    for key, value in report.user_properties:
        found.setdefault(key, []).append(str(value))
    if SCENARIO not in found or report.when != "call":
        return []
    name = found[SCENARIO][0] if report.passed else f"{found[SCENARIO][0]} (FAILED)"
    reads = (", ".join(found.get(key, ["-"])) for key in (ATTEMPTS, ERRORS, GAP))
    return [name, f"{report.duration:.1f}", *reads, "; ".join(found.get(REMARK, []))]

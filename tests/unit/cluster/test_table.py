"""The table of scenarios."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from cluster import table
from cluster.readers import Reads

if TYPE_CHECKING:
    from collections.abc import Sequence

READS: Final = {
    "c": Reads(attempts=600, errors=0, longest_gap_ms=12, last_error="-"),
    "go": Reads(attempts=500, errors=3, longest_gap_ms=90, last_error="x: Input/output error"),
}


def report(
    properties: Sequence[tuple[str, object]], *, outcome: str = "passed", when: str = "call"
) -> pytest.TestReport:
    """Return the report of a test that took a second and a half."""
    return pytest.TestReport(
        nodeid="test",
        location=("test", 1, "test"),
        keywords={},
        outcome="passed" if outcome == "passed" else "failed",
        longrepr=None,
        when="call" if when == "call" else "teardown",
        duration=1.5,
        user_properties=properties,
    )


def test_row_tells_of_reads_and_remarks() -> None:
    """Attempts and failures of all readers are added up, and the longest gap of any is told."""
    properties: list[tuple[str, object]] = [(table.SCENARIO, "keeper killed")]
    row = table.Row(lambda key, value: properties.append((key, value)))
    row.reads(READS.values())
    row.remark("once")
    row.remark("twice")
    [line] = [line for line in table.lines([report(properties)]).splitlines() if "keeper" in line]
    cells = [cell.strip() for cell in line.split("  ") if cell]
    assert cells == ["keeper killed", "1.5", "1100", "3", "90", "once; twice"]


def test_failed_scenario_is_marked() -> None:
    """A scenario that failed has a row that says so."""
    assert "pod starts[slowly] (FAILED)" in table.lines(
        [report([(table.SCENARIO, "pod starts[slowly]")], outcome="failed")]
    )


@pytest.mark.parametrize(
    "other", [report([]), report([(table.SCENARIO, "pod starts")], when="teardown")]
)
def test_what_is_no_scenario_has_no_row(other: pytest.TestReport) -> None:
    """Other tests, and reports of what follows a test, make no row; without rows, no table."""
    assert table.lines([other]) == ""

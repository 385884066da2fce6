"""What scenarios of failure came to: one table, a line for each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import attrs

from harness.load import summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.load import Report

_COLUMNS: Final = ("scenario", "runs", "reads", "failed", "torn", "p99 ms", "max ms", "leaks")


@attrs.frozen(kw_only=True)
class Outcome:
    """What one scenario came to.

    Attributes:
        runs: How often what it is about happened.
        reads: How many reads there were meanwhile.
        failed: How many of them failed, by error.
        torn: How many were of no version, of two, or of one older than acknowledged.
        stalls: For each event the longest gap between two reads of one reader around it.
        leaks: What was there afterwards and not before.
    """

    scenario: str
    runs: int
    reads: int = 0
    failed: dict[str, int] = attrs.field(factory=dict)
    torn: int = 0
    stalls: Sequence[float] = ()
    leaks: Sequence[str] = ()

    @property
    def stall_p99(self) -> float:
        """The stall that 99 of 100 events do not exceed, in seconds."""
        return percentile(self.stalls, 99)

    def cells(self) -> tuple[str, ...]:
        """Return the line in the table."""
        errors = ", ".join(f"{count} {name}" for name, count in self.failed.items())
        p99, most = (
            (f"{self.stall_p99 * 1e3:.0f}", f"{max(self.stalls) * 1e3:.0f}")
            if self.stalls
            else ("-", "-")
        )
        return (
            self.scenario,
            str(self.runs),
            str(self.reads),
            errors or "0",
            str(self.torn),
            p99,
            most,
            ", ".join(self.leaks) or "none",
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def outcome_of(
    scenario: str,
    runs: int,
    reports: Sequence[Report],
    *,
    stalls: Sequence[float] = (),
    leaks: Sequence[str] = (),
) -> Outcome:
    """Sum up what readers saw, and print what each of them did."""
    print(summary(reports))
    failed: dict[str, int] = {}
    for report in reports:
        for name, count in report.errors.items():
            failed[f"{report.reader} {name}"] = failed.get(f"{report.reader} {name}", 0) + count
    return Outcome(
        scenario=scenario,
        runs=runs,
        reads=sum(len(report.ended) for report in reports),
        failed=failed,
        torn=sum(report.torn + report.stale + report.size_wrong for report in reports),
        stalls=stalls,
        leaks=leaks,
    )


def stalls(
    reports: Sequence[Report], moments: Sequence[float], *, before_s: float, after_s: float
) -> list[float]:
    """Return for each event the longest gap between two completed reads of one reader around it."""
    return [
        max(report.longest_gap_around(moment, before_s, after_s) for report in reports)
        for moment in moments
    ]


def table(outcomes: Sequence[Outcome]) -> str:
    """Return all lines, aligned: the first column to the left, the others to the right."""
    lines = [_COLUMNS, *(outcome.cells() for outcome in outcomes)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )

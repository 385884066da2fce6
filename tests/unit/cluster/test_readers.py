"""Adding up what a reader said."""

from __future__ import annotations

import pytest

from cluster.readers import Reads, total

LINES = [
    "1100 50 0 7 -",
    "1200 40 2 30 /x: No such file or directory",
    "1300 60 0 5 -",
]


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        pytest.param(
            0,
            2000,
            Reads(
                attempts=150,
                errors=2,
                longest_gap_ms=30,
                last_error="/x: No such file or directory",
            ),
            id="all",
        ),
        pytest.param(
            1210,
            1250,
            Reads(attempts=60, errors=0, longest_gap_ms=5, last_error="-"),
            id="within-a-line",
        ),
        pytest.param(
            1301, 2000, Reads(attempts=0, errors=0, longest_gap_ms=0, last_error="-"), id="after"
        ),
    ],
)
def test_only_lines_of_the_time_count(begin: int, end: int, expected: Reads) -> None:
    """A line counts when a part of its time is in the time that is asked about."""
    assert total(LINES, begin_ms=begin, end_ms=end) == expected

"""The comparison of the README's promises with a test report."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import check_proofs
import pytest

README = """# x

## What it does

- `[serve-live]` Shows secrets.
- `[restart]` Survives.

## Limits

- `[not-a-promise]` No.
"""
TEST = "tests/unit/test_x.py::test_y"
REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_x" name="test_y[a]"/>
<testcase classname="tests.unit.test_x" name="test_y[b]">{outcome}</testcase>
</testsuite></testsuites>"""


def ended(outcome: str = "") -> dict[str, set[str]]:
    """Read a report in which the second case of the test ended so."""
    report = ET.fromstring(REPORT.format(outcome=outcome))  # noqa: S314 - written above
    return check_proofs.outcomes(report)


def test_ids_come_from_one_section_only() -> None:
    """Bullets with an id elsewhere in the README promise nothing."""
    assert check_proofs.promised(README) == ["serve-live", "restart"]


def test_matching_ids_raise_no_problem() -> None:
    """The same ids on both sides are what is wanted."""
    assert not list(check_proofs.unmatched(["a"], {"a": [TEST]}))


@pytest.mark.parametrize(
    ("bullets", "proofs"),
    [
        pytest.param(["a"], {}, id="no-entry"),
        pytest.param(["a"], {"a": []}, id="no-test"),
        pytest.param([], {"a": [TEST]}, id="no-bullet"),
    ],
)
def test_one_sided_id_is_a_problem(bullets: list[str], proofs: dict[str, list[str]]) -> None:
    """An id that one side lacks is reported."""
    assert len(list(check_proofs.unmatched(bullets, proofs))) == 1


def test_passed_test_proves_its_bullet() -> None:
    """All cases passed: nothing to report."""
    assert not list(check_proofs.unproven({"a": [TEST]}, ended()))


@pytest.mark.parametrize("outcome", ["failure", "error", "skipped"])
def test_one_bad_case_disproves_bullet(outcome: str) -> None:
    """A single case that did not pass is reported with how it ended."""
    found = list(check_proofs.unproven({"a": [TEST]}, ended(f"<{outcome}/>")))
    assert found == [f"[a]: {TEST} ended with {outcome}"]


def test_uncollected_test_disproves_bullet() -> None:
    """A test that the run does not know is reported."""
    found = list(check_proofs.unproven({"a": ["tests/unit/test_x.py::test_gone"]}, ended()))
    assert "not collected" in found[0]


def test_empty_tier_is_a_problem() -> None:
    """Each tier without a test is reported, the others not."""
    found = list(check_proofs.untried(ended()))
    assert "the mounted tier ran no test" in found
    assert "the unit tier ran no test" not in found


def test_skipped_test_is_a_problem() -> None:
    """A skipped test is reported whether or not it proves something."""
    assert "tests.unit.test_x.test_y was skipped" in list(check_proofs.untried(ended("<skipped/>")))


def test_results_of_several_reports_add_up() -> None:
    """A test that failed in one of two runs did not pass."""
    good, bad = (
        ET.fromstring(REPORT.format(outcome=outcome))  # noqa: S314 - written above
        for outcome in ("", "<failure/>")
    )
    assert check_proofs.outcomes(good, bad) == {as_ended(): {"passed", "failure"}}


def as_ended() -> str:
    """Return the name of the test in the report."""
    return check_proofs.as_reported(TEST)

"""Compare the README's promises with the tests that passed: scripts/check_proofs.py REPORTS.

The README's "What it does" lists bullets with an id in brackets; `tests/proofs.toml` maps each id
to the tests that show it. This fails unless both have the same ids, and unless every named test was
collected and passed, in all its cases, in the runs whose JUnit reports are given. It also fails
when a tier ran no test or a test was skipped: a promise that nobody tried is no promise.
"""

from __future__ import annotations

import itertools
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).parent.parent
TIERS: Final = ("unit", "stateful", "mounted", "process", "conformance", "cluster")
BULLET: Final = re.compile(r"^- `\[([a-z0-9-]+)\]`", re.MULTILINE)


def promised(readme: str) -> list[str]:
    """Return the ids of the bullets under "What it does"."""
    section = readme.split("\n## What it does\n", 1)[1].split("\n## ", 1)[0]
    return BULLET.findall(section)


def outcomes(*reports: ET.Element) -> dict[str, set[str]]:
    """Return for each test, named as pytest names it but without its case, how its cases ended."""
    ended: dict[str, set[str]] = {}
    for case in itertools.chain.from_iterable(report.iter("testcase") for report in reports):
        name = f"{case.get('classname')}.{case.get('name', '').split('[', 1)[0]}"
        bad = {child.tag for child in case} & {"failure", "error", "skipped"}
        ended.setdefault(name, set()).update(bad or {"passed"})
    return ended


def as_reported(test: str) -> str:
    """Return the name that a JUnit report has for `tests/unit/test_x.py::test_y`."""
    path, *names = test.split("::")
    return ".".join([path.removesuffix(".py").replace("/", "."), *names])


def unmatched(bullets: Sequence[str], proofs: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the ids that only one of README and proofs has."""
    for bullet in bullets:
        if not proofs.get(bullet):
            yield f"README promises [{bullet}], and tests/proofs.toml names no test for it"
    for bullet in proofs:
        if bullet not in bullets:
            yield f"tests/proofs.toml proves [{bullet}], which the README does not promise"


def unproven(proofs: Mapping[str, Sequence[str]], ended: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield the named tests that did not run or did not pass."""
    for bullet, tests in proofs.items():
        for test in tests:
            bad = ended.get(as_reported(test), {"no result: it was not collected"}) - {"passed"}
            if bad:
                yield f"[{bullet}]: {test} ended with {', '.join(sorted(bad))}"


def untried(ended: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield the skipped tests and the tiers without a test."""
    for name, found in ended.items():
        if "skipped" in found:
            yield f"{name} was skipped"
    for tier in TIERS:
        if not any(name.startswith(f"tests.{tier}.") for name in ended):
            yield f"the {tier} tier ran no test"


def main() -> int:
    """Print every problem and return the exit code."""
    bullets = promised((ROOT / "README.md").read_text(encoding="utf-8"))
    proofs = tomllib.loads((ROOT / "tests" / "proofs.toml").read_text(encoding="utf-8"))["proofs"]
    reports = [ET.parse(path).getroot() for path in sys.argv[1:]]  # noqa: S314 - our own
    ended = outcomes(*reports)
    found = [*unmatched(bullets, proofs), *unproven(proofs, ended), *untried(ended)]
    for problem in found:
        print(f"proofs: {problem}")
    if not found:
        print(f"proofs: {len(bullets)} promises, {len(ended)} tests, every promise shown")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

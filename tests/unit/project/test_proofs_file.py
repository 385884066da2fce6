"""The map from promises to tests, as far as it can be checked without running them."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import check_proofs

ROOT = Path(__file__).parents[3]
PROOFS: dict[str, list[str]] = tomllib.loads((ROOT / "tests" / "proofs.toml").read_text())["proofs"]


def test_readme_and_map_have_the_same_ids() -> None:
    """Every promise names its tests, and every entry belongs to a promise."""
    bullets = check_proofs.promised((ROOT / "README.md").read_text())
    assert bullets
    assert list(check_proofs.unmatched(bullets, PROOFS)) == []


def test_mapped_tests_exist() -> None:
    """A renamed test is noticed here, before a whole run."""
    for test in {test for tests in PROOFS.values() for test in tests}:
        path, name = test.split("::")
        tree = ast.parse((ROOT / path).read_text())
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name in {node.name for node in tree.body if isinstance(node, kinds)}, test

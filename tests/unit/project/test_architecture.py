"""What the code promises about its own shape, beyond the import fences of pyproject.toml."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("csi", "fusefs", "provider")
SYNCHRONOUS = "state machines"


def synchronous_modules() -> list[Path]:
    """Return the modules that the import contract calls state machines and parsers."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [contract] = [one for one in contracts["contracts"] if one["name"].startswith(SYNCHRONOUS)]
    return [ROOT / (name.replace(".", "/") + ".py") for name in contract["source_modules"]]


def test_state_machines_never_await() -> None:
    """A change of state happens between two awaits, so these modules have none."""
    modules = synchronous_modules()
    assert modules
    for module in modules:
        waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
        found = [
            node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, waiting)
        ]
        assert not found, f"{module}: line {found[0].lineno}"


def test_modules_stay_small() -> None:
    """No module of ours has more than 400 lines: two jobs would be hiding in it."""
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "_pb" not in path.parts
    }
    assert {path: lines for path, lines in sizes.items() if lines > 400} == {}

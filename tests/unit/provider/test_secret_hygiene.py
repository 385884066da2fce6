"""Where secrets are opened, and where the vendor's types may be known."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import provider

PACKAGE: Final = Path(provider.__file__).parent
OURS: Final = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in {"_pb", "emulator"}
]

# Module -> why it opens secrets.
MAY_REVEAL: Final = {
    "azure/credentials.py": "hands the client secret to the SDK",
    "content.py": "decodes a value as objectEncoding says",
    "identity.py": "reads the client id, and whether there are tokens",
    "redaction.py": "looks for a secret in foreign text",
    "service.py": "puts content into the answer",
}


def calls(path: Path, name: str) -> bool:
    """Tell whether a module calls a method of that name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == name
        for node in ast.walk(tree)
    )


def test_secrets_are_opened_in_few_places() -> None:
    """Every module that opens a secret is listed with its reason, and needs to be."""
    found = {str(path.relative_to(PACKAGE)) for path in OURS if calls(path, "reveal")}
    assert found == set(MAY_REVEAL)


def test_nothing_logs_an_exception_s_text() -> None:
    """`log.exception` would print what an unexpected exception says, which may be a secret."""
    assert not [path for path in OURS if calls(path, "exception")]


def test_nothing_prints() -> None:
    """Standard output is nobody's."""
    for path in OURS:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print" not in names, path

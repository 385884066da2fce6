"""Volumes as the reference driver leaves them on a node: a tmpfs in its AtomicWriter's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STAMP: Final = "..2026_01_31_12_00_00.123456789"


def fill(target: Path, files: Mapping[str, bytes]) -> None:
    """Write the first content of a volume into an empty directory."""
    for path, data in files.items():
        file = target / STAMP / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o644)
    (target / "..data").symlink_to(STAMP)
    for name in {path.partition("/")[0] for path in files}:
        (target / name).symlink_to(f"..data/{name}")

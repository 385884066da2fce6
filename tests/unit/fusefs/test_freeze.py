"""The child that fills the kernel's caches, on a plain directory instead of a mount."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from fakes.trees import specs
from fusefs import freeze, initmsg
from fusefs.snapshot import Snapshot, seal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {"user": b"u" * 5000, "nest/key": b"k", "empty": b""}


@pytest.fixture
def device() -> Iterator[int]:
    """Provide a file that takes notifications."""
    fd = os.memfd_create("notifications")
    yield fd
    os.close(fd)


@pytest.fixture
def snapshot() -> Iterator[Snapshot]:
    """Seal the files as generation 1."""
    found = seal(specs(FILES), previous=None, now_ns=1).snapshot
    yield found
    found.close()


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out generation 1 as its mount shows it, and go there."""
    for root in (tmp_path, tmp_path / "..1"):
        for path, data in FILES.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
    (tmp_path / "..data").symlink_to("..1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_whole_tree_is_looked_at(mounted: Path, device: int, snapshot: Snapshot) -> None:
    """Where every file reads as sealed, only the pages of live files were dropped before."""
    assert mounted.exists()
    assert freeze.fill(device, [(os.dup(snapshot.fd), snapshot.digest)]) == 0
    dropped = b"".join(initmsg.invalidate_content(file.node) for file in snapshot.entries())
    assert os.pread(device, 1 << 16, 0) == dropped


@pytest.mark.parametrize("path", ["nest/key", "..1/user"])
def test_other_content_is_no_success(
    mounted: Path, device: int, snapshot: Snapshot, announced: list[str], path: str
) -> None:
    """A file that goes on showing something else is dropped again and reported in the end."""
    announced.append("could not be frozen")
    (mounted / path).write_bytes(b"older")
    node = (mounted / path).stat().st_ino
    assert freeze.fill(device, [(os.dup(snapshot.fd), snapshot.digest)]) == 1
    assert os.pread(device, 1 << 16, 0).endswith(initmsg.invalidate_content(node))


def test_missing_file_ends_the_child(mounted: Path, device: int, snapshot: Snapshot) -> None:
    """A name that is not there is an error, which ends the child without success."""
    (mounted / "user").unlink()
    with pytest.raises(FileNotFoundError):
        freeze.fill(device, [(os.dup(snapshot.fd), snapshot.digest)])


def test_older_generation_may_be_missing(
    mounted: Path, device: int, snapshot: Snapshot, announced: list[str]
) -> None:
    """What the worker has let go of, or cannot map, does not stop the freeze of what is shown."""
    assert mounted.exists()
    announced.append("a generation before the newest one is not frozen")
    older = seal(specs(FILES), previous=snapshot, now_ns=2).snapshot
    with contextlib.closing(older):
        generations = [
            (os.dup(older.fd), older.digest),
            (os.open(os.devnull, os.O_RDONLY), b""),
            (os.dup(snapshot.fd), snapshot.digest),
        ]
        assert freeze.fill(device, generations) == 0

"""What is made once: complete or not there, and made by one at a time."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cluster import cache

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache.folder()


def fill(target: Path) -> None:
    """Make an entry."""
    (target / "file").write_text("content")


def test_entry_is_made_once() -> None:
    """However many ask for an entry, one of them makes it and all get it."""
    made = []

    def make(target: Path) -> None:
        fill(target)
        made.append(target)

    with ThreadPoolExecutor(max_workers=4) as pool:
        entries = set(pool.map(lambda _: cache.kept("thing-1", make), range(8)))
    assert len(made) == 1
    assert [(entry / "file").read_text() for entry in entries] == ["content"]


def test_failure_leaves_no_entry(folder: Path) -> None:
    """What failed or was interrupted half-way is not taken for an entry, and is removed later."""

    def fail(target: Path) -> None:
        fill(target)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.kept("thing-1", fail)
    assert not (folder / "thing-1").exists()
    assert (cache.kept("thing-1", fill) / "file").exists()
    assert list(folder.glob(".*unfinished")) == []


def test_long_unused_entry_is_removed(folder: Path) -> None:
    """An entry of the same kind that nobody has asked for in months goes; others stay."""
    old, other = cache.kept("thing-1", fill), cache.kept("other-1", fill)
    for entry in (old, other):
        os.utime(entry, (0, 0))
    new = cache.kept("thing-2", fill)
    assert [path.exists() for path in (old, other, new)] == [False, True, True]
    assert folder == new.parent


def test_entries_beyond_the_most_are_removed(folder: Path) -> None:
    """Of a kind that is kept in small numbers, those used last stay; of other kinds all do."""
    other = cache.kept("other-1", fill)
    old, used = cache.kept("thing-1", fill), cache.kept("thing-2", fill)
    os.utime(other, (1, 1))
    os.utime(old, (time.time() - 60, time.time() - 60))
    new = cache.kept("thing-3", fill, most=2)
    assert [path.exists() for path in (old, used, new, other)] == [False, True, True, True]
    assert folder == new.parent


def test_digest_keeps_parts_apart() -> None:
    """The same bytes cut differently are something else."""
    assert cache.digest("ab", "c") != cache.digest("a", "bc")

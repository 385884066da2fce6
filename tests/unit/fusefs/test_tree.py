"""Which paths are refused, with which words, and how files become a tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.trees import PATHS, TREES
from fusefs.errors import InvalidTree
from fusefs.tree import MAX_NAME_BYTES, check_path, check_tree, directories, parents

LONGEST_NAME = "n" * MAX_NAME_BYTES
LONGEST_PATH = "/".join(["n" * 255] * 15 + ["n" * 200, "n" * 54])


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        pytest.param("", "must not be empty", id="empty"),
        pytest.param("/etc/passwd", "must be relative", id="absolute"),
        pytest.param("/", "must be relative", id="root"),
        pytest.param("a\0b", "must not contain NUL", id="nul"),
        pytest.param("..", "must not start with '..'", id="dotdot"),
        pytest.param("../a", "must not start with '..'", id="parent"),
        pytest.param("..data", "must not start with '..'", id="data-link"),
        pytest.param("..1/a", "must not start with '..'", id="generation"),
        pytest.param("a/../b", "must not contain '..'", id="dotdot-inside"),
        pytest.param("a/..", "must not contain '..'", id="dotdot-last"),
        pytest.param(".", "must be clean", id="dot"),
        pytest.param("./a", "must be clean", id="dot-first"),
        pytest.param("a/./b", "must be clean", id="dot-inside"),
        pytest.param("a//b", "must be clean", id="empty-element"),
        pytest.param("a/", "must be clean", id="trailing-slash"),
        pytest.param(LONGEST_NAME + "n", "at most 255 bytes", id="long-name"),
        pytest.param("é" * 128, "at most 255 bytes", id="long-in-bytes"),
        pytest.param("d/" + "é" * 128, "at most 255 bytes", id="long-below"),
        pytest.param(LONGEST_PATH + "n", "at most 4095 bytes", id="long-path"),
        pytest.param("/".join(["é" * 100] * 21), "at most 4095 bytes", id="long-path-in-bytes"),
        pytest.param("\ud800", "must be valid UTF-8", id="surrogate"),
    ],
)
def test_bad_paths_are_refused_with_a_reason(path: str, problem: str) -> None:
    """The error carries the problem and a part of the path, short enough for an event."""
    with pytest.raises(InvalidTree) as caught:
        check_path(path)
    assert problem in caught.value.problem
    assert caught.value.problem in str(caught.value)
    assert len(str(caught.value).encode()) < 300


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("password", id="plain"),
        pytest.param("dir/key", id="nested"),
        pytest.param(".hidden", id="hidden"),
        pytest.param("a..b", id="dots-inside"),
        pytest.param("a/..b", id="dots-below"),
        pytest.param("new\nline tab\t\\", id="escapes"),
        pytest.param(LONGEST_NAME, id="longest-name"),
        pytest.param(LONGEST_PATH, id="longest-path"),
    ],
)
def test_unusual_paths_are_accepted(path: str) -> None:
    """What the kernel and the reference driver accept is accepted."""
    check_path(path)


def test_two_files_with_one_path_are_refused() -> None:
    """The error names the path and the remedy, an alias."""
    with pytest.raises(InvalidTree, match=r"'a'.*objectAlias"):
        check_tree(["a", "b", "a"])


@pytest.mark.parametrize("paths", [["a", "a/b"], ["a/b/c", "x", "a"], ["a/b", "a/b/c"]])
def test_file_where_a_directory_is_needed(paths: list[str]) -> None:
    """A file cannot be another's parent, whatever the order of the two."""
    with pytest.raises(InvalidTree, match="needs a directory of this name"):
        check_tree(paths)


@given(files=TREES)
def test_trees_without_conflicts_are_accepted(files: dict[str, bytes]) -> None:
    """Every tree that the strategies make is one that a volume may hold."""
    check_tree(list(files))


@given(paths=st.lists(PATHS, max_size=5))
def test_directories_come_before_what_they_hold(paths: list[str]) -> None:
    """Each needed directory is there once, after its own parent."""
    found = directories(paths)
    assert sorted(found) == sorted({parent for path in paths for parent in parents(path)})
    for number, path in enumerate(found):
        assert set(parents(path)) <= set(found[:number])


def test_parents_start_with_the_outermost() -> None:
    """A path's parents are listed from the top, without the root and without itself."""
    assert parents("a/b/c") == ["a", "a/b"]
    assert parents("a") == []

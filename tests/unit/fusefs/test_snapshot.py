"""Snapshots: what is sealed is what is read, ids are for life, and broken ones are refused."""

from __future__ import annotations

import copy
import os
import pickle
import struct
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.trees import SECOND_NS, TREES, kinds, sealed, specs
from fusefs.errors import InvalidSnapshot, InvalidTree
from fusefs.memory import sealed_memfd
from fusefs.nodeids import ROOT_NODE
from fusefs.snapshot import MAX_SNAPSHOT_BYTES, FileSpec, Snapshot, differs, seal

if TYPE_CHECKING:
    from collections.abc import Callable

MAGIC = b"akvfs\x00\x00\x01"
SPECS = st.builds(
    lambda files, modes, owner, version: [
        FileSpec(
            path=path,
            content=content,
            mode=modes[number % len(modes)],
            uid=owner[0],
            gid=owner[1],
            object_id=f"secret/{number}",
            object_version=version,
        )
        for number, (path, content) in enumerate(files.items())
    ],
    TREES,
    st.lists(st.integers(0, 0o777), min_size=1, max_size=3),
    st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2)),
    st.text("0123456789abcdef", max_size=4),
)


@given(files=SPECS)
def test_mapping_again_gives_what_was_sealed(files: list[FileSpec]) -> None:
    """Another process that maps the descriptor finds each file with all its attributes."""
    with sealed(files) as made:
        mapped = Snapshot.map(os.dup(made.snapshot.fd), made.snapshot.digest)
        try:
            assert mapped.generation == 1
            assert mapped.changed_ns == SECOND_NS
            found = [
                FileSpec(
                    path=entry.path,
                    content=mapped.content(entry.path),
                    mode=entry.mode,
                    uid=entry.uid,
                    gid=entry.gid,
                    object_id=entry.object_id,
                    object_version=entry.object_version,
                )
                for entry in mapped.entries()
            ]
            assert found == files
            assert not differs(files, mapped)
        finally:
            mapped.close()


@given(files=SPECS)
def test_snapshot_has_the_directories_it_needs(files: list[FileSpec]) -> None:
    """The root and every parent are there, in the group of the files."""
    with sealed(files) as made:
        directories = made.snapshot.directories
    needed = kinds({spec.path: b"" for spec in files})
    assert set(directories) == {"", *(path for path, is_dir in needed.items() if is_dir)}
    assert directories[""].node == ROOT_NODE
    assert {entry.gid for entry in directories.values()} == {files[0].gid if files else 0}


@given(content=st.binary(max_size=20), offset=st.integers(0, 30), length=st.integers(0, 30))
def test_reads_end_exactly_where_the_file_ends(content: bytes, offset: int, length: int) -> None:
    """A read never reaches into the file that lies behind in memory."""
    with sealed({"a": b"<<", "b": content, "c": b">>"}) as made:
        snapshot = made.snapshot
        assert snapshot.read(snapshot.files["b"], offset, length) == content[offset:][:length]


@given(history=st.lists(TREES, min_size=2, max_size=5))
def test_node_ids_are_stable_and_never_reused(history: list[dict[str, bytes]]) -> None:
    """A path of one kind has one id for life, over removals too; no id ever means two things."""
    names: dict[int, tuple[str, bool]] = {}
    ids: dict[tuple[str, bool], int] = {}
    previous: Snapshot | None = None
    for number, files in enumerate(history, 1):
        made = seal(specs(files), previous=previous, now_ns=number).snapshot
        if previous:
            previous.close()
        previous = made
        assert made.generation == number
        assert made.changed_ns == number
        nodes = [(entry.path, False, entry.node) for entry in made.files.values()]
        nodes += [(entry.path, True, entry.node) for entry in made.directories.values()]
        for path, is_directory, node in nodes:
            assert names.setdefault(node, (path, is_directory)) == (path, is_directory)
            assert ids.setdefault((path, is_directory), node) == node
    assert previous is not None
    previous.close()


@given(before=TREES, after=TREES)
def test_unchanged_files_keep_their_change_time(
    before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    """Exactly the files with new content get the time of the new generation."""
    with sealed(before, now_ns=1) as first, sealed(after, first.snapshot, now_ns=2) as second:
        times = {entry.path: entry.mtime_ns for entry in second.snapshot.entries()}
    assert times == {path: 1 if before.get(path) == after[path] else 2 for path in after}


CHANGES: dict[str, dict[str, Any]] = {
    "content": {"content": b"other"},
    "same-size-content": {"content": b"seCret"},
    "mode": {"mode": 0o600},
    "uid": {"uid": 1},
    "gid": {"gid": 1},
}
IDENTITY_CHANGES = {"object": {"object_id": "key/a"}, "version": {"object_version": "2"}}
BASE = FileSpec(path="a", content=b"secret", object_id="secret/a", object_version="1")


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_visible_change_is_a_difference(change: dict[str, Any]) -> None:
    """A file with other content, mode or owner differs, and gets a new change time."""
    changed = attrs.evolve(BASE, **change)
    with sealed([BASE], now_ns=1) as first:
        assert differs([changed], first.snapshot)
        with sealed([changed], first.snapshot, now_ns=2) as second:
            assert second.snapshot.files["a"].mtime_ns == 2


@pytest.mark.parametrize("change", IDENTITY_CHANGES.values(), ids=IDENTITY_CHANGES)
def test_version_alone_is_a_silent_difference(change: dict[str, Any]) -> None:
    """A new version with the same bytes is worth a generation, but touches no file."""
    changed = attrs.evolve(BASE, **change)
    with sealed([BASE], now_ns=1) as first:
        assert differs([changed], first.snapshot)
        with sealed([changed], first.snapshot, now_ns=2) as second:
            assert second.snapshot.files["a"].mtime_ns == 1


@pytest.mark.parametrize("files", [[], [BASE, attrs.evolve(BASE, path="b")]], ids=["less", "more"])
def test_other_sets_of_files_differ(files: list[FileSpec]) -> None:
    """A file that goes or comes is a difference."""
    with sealed([BASE]) as first:
        assert differs(files, first.snapshot)


def test_order_of_files_makes_no_difference() -> None:
    """The same files in another order are the same content."""
    files = [BASE, attrs.evolve(BASE, path="b", content=b"x")]
    with sealed(files) as first:
        assert not differs(files[::-1], first.snapshot)


def test_no_repr_shows_any_content() -> None:
    """Content stays out of every text that a log could print."""
    spec = FileSpec(path="a", content=b"canary")
    with sealed([spec]) as made:
        texts = [repr(spec), str(spec), repr(made), repr(made.snapshot), str(made.snapshot)]
    assert not [text for text in texts if "canary" in text]
    assert "<secret 6 bytes>" in texts[0]
    assert "generation=1 files=1" in texts[2]


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_file_with_content_is_not_copied(take: Callable[[FileSpec], object]) -> None:
    """A secret that could be pickled would end in a cache, a log or another process."""
    with pytest.raises(TypeError, match="not pickled or copied"):
        take(BASE)


def test_files_that_are_no_tree_cannot_be_sealed() -> None:
    """Sealing checks the tree first, and leaves nothing open."""
    with pytest.raises(InvalidTree):
        seal(specs({"a": b"", "a/b": b""}), previous=None, now_ns=1)


def test_content_beyond_the_limit_is_refused() -> None:
    """A snapshot larger than a volume may be is refused, and its memory let go of."""
    fd = sealed_memfd("test", [b"x" * 1001])
    with pytest.raises(InvalidSnapshot, match="has 1001 bytes"):
        Snapshot.map(fd, max_bytes=1000)
    assert MAX_SNAPSHOT_BYTES >= 64 << 20


def packed(index: object, *, magic: bytes = MAGIC, payload: bytes = b"12345678") -> list[bytes]:
    """Return the parts of a snapshot with this index."""
    encoded = msgspec.msgpack.encode(index)
    return [struct.pack("<8sI", magic, len(encoded)), encoded, payload]


def index_of(**change: object) -> list[Any]:
    """Return a valid index of one file of 8 bytes, with changes to the entry of that file."""
    entry = {
        "path": "a",
        "node": 2,
        "offset": 0,
        "size": 8,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "mtime_ns": 1,
        "object_id": "",
        "object_version": "",
    } | change
    return [1, 1, [list(entry.values())], [["", 1, 0]], {"a": 2}]


def test_index_of_these_tests_is_valid() -> None:
    """The base of the broken ones is not broken itself."""
    snapshot = Snapshot.map(sealed_memfd("test", packed(index_of())))
    assert snapshot.content("a") == b"12345678"
    snapshot.close()


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        pytest.param([b"akv"], "does not start like a snapshot", id="short-header"),
        pytest.param([b"x" * 100], "does not start like a snapshot", id="no-magic"),
        pytest.param(
            packed(index_of(), magic=b"akvfs\0\0\2"), "of this version", id="other-version"
        ),
        pytest.param(
            [struct.pack("<8sI", MAGIC, 9999), b"x"], "cannot be decoded", id="index-past-the-end"
        ),
        pytest.param(
            [struct.pack("<8sI", MAGIC, 4), b"\xc1\xc1\xc1\xc1"],
            "cannot be decoded",
            id="no-msgpack",
        ),
        pytest.param(packed({"files": 1}), "cannot be decoded", id="wrong-shape"),
        pytest.param(packed(index_of(size="8")), "cannot be decoded", id="wrong-type"),
        pytest.param(packed(index_of(size=9)), "points past its end", id="size-past-the-end"),
        pytest.param(packed(index_of(offset=1)), "points past its end", id="offset-past-the-end"),
        pytest.param(packed(index_of(offset=-4)), "cannot be decoded", id="negative-offset"),
        pytest.param(packed(index_of(size=-1)), "cannot be decoded", id="negative-size"),
    ],
)
def test_broken_snapshots_are_refused(parts: list[bytes], problem: str) -> None:
    """The error says what is wrong, and the descriptor is closed (see conftest)."""
    with pytest.raises(InvalidSnapshot, match=problem):
        Snapshot.map(sealed_memfd("test", parts))


def test_unsealed_snapshots_are_refused() -> None:
    """A memory file that its sender can still change is not mapped."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, b"".join(packed(index_of())))
    with pytest.raises(InvalidSnapshot, match="not sealed"):
        Snapshot.map(fd)

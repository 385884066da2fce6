"""What stat shows."""

from __future__ import annotations

import stat

from hypothesis import given

from fakes.trees import SECOND_NS, TREES, kinds, sealed
from fakes.volumes import volume_of
from fusefs.nodeids import LINK_LOCAL, PRIME_NODE, ROOT_NODE, joined
from fusefs.operations import CACHED_S, entry_of
from fusefs.snapshot import FileSpec


@given(files=TREES)
def test_directory_links_count_subdirectories(files: dict[str, bytes]) -> None:
    """`find` relies on it; the live root counts the listed generation directory, too."""
    with volume_of(files) as volume:
        for root, extra in ((ROOT_NODE, 1), (joined(1, ROOT_NODE), 0)):
            assert volume.table.attributes(root).links == 2 + extra + below("", files)
            for path, is_directory in kinds(files).items():
                found = volume.table.attributes(volume.node(path, root))
                assert found.links == (2 + below(path, files) if is_directory else 1)
                assert found.kind == ("directory" if is_directory else "file")


def below(path: str, files: dict[str, bytes]) -> int:
    """Return how many directories stand directly in the directory `path`."""
    prefix = path + "/" if path else ""
    return sum(
        is_directory and one.startswith(prefix) and "/" not in one[len(prefix) :]
        for one, is_directory in kinds(files).items()
    )


def test_files_show_what_was_asked_for() -> None:
    """Mode, owner and size are the file's; its time is when this content arrived."""
    spec = FileSpec(path="a", content=b"12345", mode=0o640, uid=3, gid=4)
    with volume_of({"x": b""}) as volume, sealed([spec]) as made:
        assert volume.newest is not None
        entry = entry_of(volume.table.attributes(volume.node("x")))
        assert stat.S_ISREG(entry.st_mode)
        assert entry.st_blocks == 0
        found = made.snapshot.files["a"]
    assert (found.mode, found.uid, found.gid, found.size) == (0o640, 3, 4, 5)
    assert found.mtime_ns == SECOND_NS


def test_link_has_the_time_of_its_generation() -> None:
    """The ``..data`` link is as long as its target and as old as the generation."""
    with volume_of({"a": b""}) as volume:
        volume.rotate({"a": b"x"})
        link = volume.table.attributes(volume.node("..data"))
        root = volume.table.attributes(ROOT_NODE)
        assert (link.kind, link.mode, link.size) == ("link", 0o777, len("..2"))
        assert link.time_ns == root.time_ns == 2
        gone = volume.table.attributes(joined(99, LINK_LOCAL))
        assert (gone.kind, gone.size) == ("link", len("..99"))


def test_priming_file_is_not_remembered() -> None:
    """The kernel may keep every other entry until it is told, and this one not at all."""
    with volume_of({"a": b""}) as volume:
        prime = entry_of(volume.table.attributes(PRIME_NODE))
        assert (prime.entry_timeout, prime.attr_timeout) == (0, 0)
        lasting = entry_of(volume.table.attributes(volume.node("a")))
        assert (lasting.entry_timeout, lasting.attr_timeout) == (CACHED_S, CACHED_S)


def test_sizes_fill_whole_blocks() -> None:
    """`du` counts blocks of 512 bytes, rounded up."""
    with volume_of({"a": b"x" * 513, "b": b"x" * 512}) as volume:
        blocks = [
            entry_of(volume.table.attributes(volume.node(name))).st_blocks for name in ("a", "b")
        ]
    assert blocks == [2, 1]

"""Handlers, called as pyfuse3 would: reading."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pyfuse3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.fuse import answer, errno_of
from fakes.volumes import CONTEXT, FakeVolume, volume_of
from fusefs.nodeids import LINK_LOCAL, PRIME_NAME, PRIME_NODE, ROOT_NODE, Handle, joined
from fusefs.operations import CACHED_S

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = {"a": b"one", "d/b": b"two"}


@pytest.fixture
def volume() -> Iterator[FakeVolume]:
    """Return a volume with a file and a directory with a file."""
    with volume_of(FILES) as made:
        yield made


def read(volume: FakeVolume, handle: int, offset: int = 0, size: int = 4096) -> bytes:
    """Read through an open handle."""
    content: bytes = answer(volume.operations.read(handle, offset, size))
    return content


def test_look_up_answers_and_counts(volume: FakeVolume) -> None:
    """The entry is the node's, to be cached until told; a generation's node is then in use."""
    entry = answer(volume.operations.lookup(ROOT_NODE, b"a", CONTEXT))
    assert (entry.st_ino, entry.st_size) == (volume.node("a"), 3)
    assert entry.entry_timeout == entry.attr_timeout == CACHED_S
    assert 1 not in volume.in_use()
    answer(volume.operations.lookup(ROOT_NODE, b"..1", CONTEXT))
    assert 1 in volume.in_use()


@pytest.mark.parametrize("name", [b".", b"..", b"absent"])
def test_look_up_of_the_absent_counts_nothing(volume: FakeVolume, name: bytes) -> None:
    """A failed look-up is ENOENT, and leaves nothing to be forgotten."""
    root = volume.node("..1")
    for parent in (ROOT_NODE, root):
        assert errno_of(volume.operations.lookup(parent, name, CONTEXT)) == errno.ENOENT
    assert volume.in_use() == set()


def test_look_up_below_a_file_is_enotdir(volume: FakeVolume) -> None:
    """A file is no directory, in either view."""
    for parent in ("a", "..1/a"):
        where = volume.node(parent)
        assert errno_of(volume.operations.lookup(where, b"x", CONTEXT)) == errno.ENOTDIR


def test_forget_counts_look_ups_down(volume: FakeVolume) -> None:
    """All nodes of a generation count together, and live nodes not at all."""
    nodes = []
    for parent, name in ((ROOT_NODE, b"..1"), (volume.node("..1"), b"a")):
        nodes.append(answer(volume.operations.lookup(parent, name, CONTEXT)).st_ino)
    answer(volume.operations.forget([(nodes[0], 1), (volume.node("a"), 5)]))
    assert 1 in volume.in_use()
    answer(volume.operations.forget([(nodes[1], 1)]))
    assert 1 not in volume.in_use()


def test_attributes_of_every_kind(volume: FakeVolume) -> None:
    """Files, directories and links carry their type in the mode."""
    kinds = {
        path: stat.S_IFMT(answer(volume.operations.getattr(volume.node(path), CONTEXT)).st_mode)
        for path in ("a", "d", "..data", "..1", "..1/d/b")
    }
    assert kinds == {
        "a": stat.S_IFREG,
        "d": stat.S_IFDIR,
        "..data": stat.S_IFLNK,
        "..1": stat.S_IFDIR,
        "..1/d/b": stat.S_IFREG,
    }
    assert errno_of(volume.operations.getattr(joined(7, ROOT_NODE), CONTEXT)) == errno.ESTALE


def test_link_names_the_generation(volume: FakeVolume) -> None:
    """READLINK says the directory; of a file it is ENOENT."""
    assert answer(volume.operations.readlink(volume.node("..data"), CONTEXT)) == b"..1"
    assert errno_of(volume.operations.readlink(volume.node("a"), CONTEXT)) == errno.ENOENT


def test_extended_attributes_and_their_absence(volume: FakeVolume) -> None:
    """What is listed can be read; anything else is ENODATA; a link has none to list."""
    operations = volume.operations
    names = answer(operations.listxattr(volume.node("a"), CONTEXT))
    assert names == [b"user.akv.generation", b"user.akv.object", b"user.akv.version"]
    assert answer(operations.getxattr(volume.node("a"), names[0], CONTEXT)) == b"1"
    absent = b"security.selinux"
    for node in (volume.node("a"), volume.node("..data"), PRIME_NODE):
        assert errno_of(operations.getxattr(node, absent, CONTEXT)) == errno.ENODATA
    assert answer(operations.listxattr(volume.node("..data"), CONTEXT)) == []


@pytest.mark.parametrize(
    ("content", "blocks"), [(b"", 1), (b"x", 1), (b"x" * 4096, 1), (b"x" * 4097, 2)]
)
def test_statfs_is_full_and_never_empty(content: bytes, blocks: int) -> None:
    """A full file system of its real size: zero blocks would trip disk alerts."""
    with volume_of({"a": content} if content else {}) as made:
        found = answer(made.operations.statfs(CONTEXT))
    assert (found.f_blocks, found.f_bfree, found.f_bavail) == (blocks, 0, 0)
    assert (found.f_files, found.f_ffree, found.f_namemax) == (1, 0, 255)
    assert found.f_bsize == found.f_frsize == 4096


def test_live_files_bypass_the_page_cache(volume: FakeVolume) -> None:
    """Pages are shared by all handles of a node, so only a generation's may be cached."""
    live = answer(volume.operations.open(volume.node("a"), os.O_RDONLY, CONTEXT))
    fixed = answer(volume.operations.open(volume.node("..1/a"), os.O_RDONLY, CONTEXT))
    assert (live.direct_io, live.keep_cache) == (True, False)
    assert (fixed.direct_io, fixed.keep_cache) == (False, True)
    assert read(volume, live.fh) == read(volume, fixed.fh) == b"one"


@given(content=st.binary(max_size=12), offset=st.integers(0, 20), size=st.integers(0, 20))
def test_reads_have_an_exact_end(content: bytes, offset: int, size: int) -> None:
    """Short exactly at the end of the file, empty behind it."""
    with volume_of({"a": content, "b": b"behind"}) as made:
        info = answer(made.operations.open(made.node("a"), os.O_RDONLY, CONTEXT))
        assert read(made, info.fh, offset, size) == content[offset:][:size]


def test_open_handle_keeps_its_version(volume: FakeVolume) -> None:
    """One open is one version, over rotations, removal and a new worker."""
    handle = answer(volume.operations.open(volume.node("d/b"), os.O_RDONLY, CONTEXT)).fh
    volume.rotate({"a": b"uno", "d/b": b"other"})
    assert read(volume, handle) == b"two"
    newer = answer(volume.operations.open(volume.node("d/b"), os.O_RDONLY, CONTEXT)).fh
    assert read(volume, newer) == b"other"
    volume.rotate({"a": b"uno"})
    volume.restart()
    assert volume.drop([1, 2]) == []
    assert (read(volume, handle), read(volume, newer)) == (b"two", b"other")
    answer(volume.operations.release(handle))
    assert volume.drop([1, 2]) == [1]
    assert errno_of(volume.operations.read(handle, 0, 9)) == errno.ESTALE
    answer(volume.operations.release(newer))
    assert volume.drop([2]) == [2]


def test_priming_file_is_empty_and_uncounted(volume: FakeVolume) -> None:
    """It opens, reads as nothing and leaves no trace in the counts."""
    volume.table.priming = True
    entry = answer(volume.operations.lookup(ROOT_NODE, PRIME_NAME, CONTEXT))
    assert entry.entry_timeout == 0
    info = answer(volume.operations.open(entry.st_ino, os.O_RDONLY, CONTEXT))
    assert read(volume, info.fh) == b""
    answer(volume.operations.release(info.fh))
    answer(volume.operations.forget([(entry.st_ino, 1)]))
    assert volume.in_use() == set()


def test_flush_is_not_implemented(volume: FakeVolume) -> None:
    """The kernel learns at priming that it need not ask at every close."""
    assert errno_of(volume.operations.flush(1)) == errno.ENOSYS


def test_directory_handle_keeps_its_generation(volume: FakeVolume) -> None:
    """A listing is of the generation that its opendir saw; it is in use until releasedir."""
    handle = answer(volume.operations.opendir(ROOT_NODE, CONTEXT))
    assert Handle.unpack(handle) == Handle(generation=1, local=ROOT_NODE, live=True)
    fixed = answer(volume.operations.opendir(volume.node("..1/d"), CONTEXT))
    assert Handle.unpack(fixed).live is False
    volume.rotate({"a": b"x"})
    for open_one in (handle, fixed):
        assert volume.drop([1]) == []
        answer(volume.operations.releasedir(open_one))
    assert volume.drop([1]) == [1]


def test_only_directories_can_be_listed(volume: FakeVolume) -> None:
    """OPENDIR of a file, of a link or of what is gone fails and counts nothing."""
    for node in (volume.node("a"), volume.node("..data"), joined(9, ROOT_NODE)):
        assert errno_of(volume.operations.opendir(node, CONTEXT)) == errno.ESTALE
    assert volume.in_use() == set()


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_open_for_writing_is_refused(volume: FakeVolume, flags: int) -> None:
    """No file can be opened for writing while no plan is in progress."""
    for path in ("a", "..1/a"):
        assert errno_of(volume.operations.open(volume.node(path), flags, CONTEXT)) == errno.EROFS
    assert volume.in_use() == set()


def test_everything_that_changes_is_refused(volume: FakeVolume) -> None:
    """Without a plan in progress every changing operation is EROFS, on every kind of node."""
    operations = volume.operations
    attr, fields = pyfuse3.EntryAttributes(), pyfuse3.SetattrFields()
    a = volume.node("a")
    handle = answer(operations.open(a, os.O_RDONLY, CONTEXT)).fh
    names = (ROOT_NODE, b"..data_tmp", ROOT_NODE, b"..data")
    refused = {
        "mkdir": operations.mkdir(ROOT_NODE, b"n", 0o755, CONTEXT),
        "create": operations.create(ROOT_NODE, b"n", 0o644, os.O_WRONLY, CONTEXT),
        "create-below": operations.create(volume.node("..1"), b"n", 0o644, 0, CONTEXT),
        "unlink": operations.unlink(ROOT_NODE, b"a", CONTEXT),
        "rmdir": operations.rmdir(ROOT_NODE, b"d", CONTEXT),
        "symlink": operations.symlink(ROOT_NODE, b"..data_tmp", b"..1", CONTEXT),
        "rename": operations.rename(*names, 0, CONTEXT),
        "setattr": operations.setattr(a, attr, fields, None, CONTEXT),
        "mknod": operations.mknod(ROOT_NODE, b"n", 0o644, 0, CONTEXT),
        "link": operations.link(a, ROOT_NODE, b"n", CONTEXT),
        "setxattr": operations.setxattr(a, b"user.n", b"", CONTEXT),
        "removexattr": operations.removexattr(a, b"user.akv.version", CONTEXT),
        "write": operations.write(handle, 0, b"x"),
    }
    found = {name: errno_of(handler) for name, handler in refused.items()}
    assert found == dict.fromkeys(refused, errno.EROFS)


def test_look_up_of_a_link_keeps_its_generation(volume: FakeVolume) -> None:
    """While the kernel knows where ``..data`` points, what it points to stays."""
    entry = answer(volume.operations.lookup(ROOT_NODE, b"..data", CONTEXT))
    assert entry.st_ino == joined(1, LINK_LOCAL)
    volume.rotate({"a": b"x"})
    assert volume.drop([1]) == []
    answer(volume.operations.forget([(entry.st_ino, 1)]))
    assert volume.drop([1]) == [1]

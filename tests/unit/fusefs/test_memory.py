"""Memory files: nobody can change one unnoticed, and what is not one is refused unread."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs import syscalls
from fusefs.errors import InvalidSnapshot
from fusefs.locking import LockedPages
from fusefs.memory import (
    REQUIRED_SEALS,
    Stored,
    check_digest,
    check_sealed,
    check_stored,
    is_secret,
    map_read_only,
    sealed_memfd,
    store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SEALS = {
    "seal": fcntl.F_SEAL_SEAL,
    "shrink": fcntl.F_SEAL_SHRINK,
    "grow": fcntl.F_SEAL_GROW,
    "write": fcntl.F_SEAL_WRITE,
}


@given(parts=st.lists(st.binary(max_size=20), max_size=4))
def test_memory_file_holds_its_parts_in_order(parts: list[bytes]) -> None:
    """What was given is there, one after another, and nothing else."""
    fd = sealed_memfd("test", parts)
    try:
        assert os.pread(fd, 1000, 0) == b"".join(parts)
        assert os.get_inheritable(fd) is False
    finally:
        os.close(fd)


def test_kernel_without_noexec_seal_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.3 the flag is unknown, and files are sealed all the same."""
    create = os.memfd_create

    def old_kernel(name: str, flags: int) -> int:
        if flags & 0x8:
            raise OSError(errno.EINVAL, "unknown flag")
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", old_kernel)
    fd = sealed_memfd("test", [b"content"])
    try:
        assert check_sealed(fd, max_bytes=7) == 7
    finally:
        os.close(fd)


def test_failed_memory_file_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a node without memory nor a write that fails leaves a descriptor (conftest)."""

    def fail(*_: object) -> int:
        raise OSError(errno.ENOMEM, "no memory")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        with pytest.raises(OSError, match="no memory"):
            sealed_memfd("test", [b"content"])
    with monkeypatch.context() as patched:
        patched.setattr(os, "memfd_create", fail)
        with pytest.raises(OSError, match="no memory"):
            sealed_memfd("test", [b"content"])


def test_sealed_file_can_never_change_again() -> None:
    """Writing, growing, shrinking, mapping for writing and more seals are all refused."""
    fd = sealed_memfd("test", [b"content"])
    try:
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        for size in (0, 100):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 7, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0)
        assert check_sealed(fd, max_bytes=7) == 7
    finally:
        os.close(fd)


@pytest.mark.parametrize("missing", SEALS.values(), ids=SEALS)
def test_each_missing_seal_is_refused(missing: int) -> None:
    """A file that lacks one of the seals could change under its readers."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, b"content")
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, REQUIRED_SEALS & ~missing)
        with pytest.raises(InvalidSnapshot, match="not sealed"):
            check_sealed(fd, max_bytes=100)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("content", "max_bytes"),
    [pytest.param(b"", 10, id="empty"), pytest.param(b"12345678", 7, id="too-large")],
)
def test_sizes_out_of_bounds_are_refused(content: bytes, max_bytes: int) -> None:
    """The message says which size it is and which are allowed."""
    fd = sealed_memfd("test", [content])
    try:
        with pytest.raises(InvalidSnapshot, match=f"has {len(content)} bytes.*1 to {max_bytes}"):
            check_sealed(fd, max_bytes=max_bytes)
    finally:
        os.close(fd)


def test_plain_files_and_pipes_are_refused(tmp_path: Path) -> None:
    """Only a memory file can be sealed; nothing else is taken for one."""
    (tmp_path / "file").write_bytes(b"content")
    plain = os.open(tmp_path / "file", os.O_RDONLY)
    reading, writing = os.pipe()
    try:
        for fd in (plain, reading):
            # A file of a tmpfs may be sealed too, so there it is refused as unsealed.
            with pytest.raises(InvalidSnapshot, match=r"not a memory file|not sealed"):
                check_sealed(fd, max_bytes=100)
    finally:
        for fd in (plain, reading, writing):
            os.close(fd)


def test_mapping_shows_the_content_read_only() -> None:
    """The mapping has the bytes, cannot be written, and is left out of core dumps."""
    fd = sealed_memfd("test", [b"content"])
    mapping = map_read_only(fd, 7)
    os.close(fd)
    try:
        assert mapping[:] == b"content"
        with pytest.raises(TypeError):
            mapping[0] = 0
        assert "dd" in flags_of_mapping("/memfd:test")
    finally:
        mapping.close()


def test_locked_pages_are_locked_until_released() -> None:
    """The pages count as locked, are not in children or core dumps, and are let go of."""
    fd = sealed_memfd("locked-pages", [b"x" * 10000])
    pages = LockedPages(fd, 10000)
    os.close(fd)
    flags = flags_of_mapping("/memfd:locked-pages")
    pages.release()
    assert {"lo", "dc", "dd"} <= flags
    assert flags_of_mapping("/memfd:locked-pages") == set()


def test_pages_of_nothing_cannot_be_locked() -> None:
    """A failure says which call failed, and leaves no mapping behind."""
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="mmap: "):
            LockedPages(reading, 10)
    finally:
        os.close(reading)
        os.close(writing)


def flags_of_mapping(name: str) -> set[str]:
    """Return the VmFlags of this process's mapping of `name` (proc(5), smaps)."""
    found = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if name in line:
            found = True
        elif found and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    return set()


# Secret memory

CONTENT = [b"one", b"", b"two"]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the limit of locked memory that this process seems to have, to be changed."""
    found = [resource.RLIM_INFINITY]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (found[0], found[0]))
    return found


@pytest.fixture
def stored(limit: list[int]) -> Iterator[Stored]:
    """Store some content where the limit allows anything."""
    assert limit
    made = store("test", CONTENT)
    yield made
    os.close(made.fd)


def test_stored_content_is_secret_or_sealed(stored: Stored) -> None:
    """Secret memory where the kernel has it, with the digest that a sealed file needs not."""
    size = check_stored(stored.fd, stored.digest, max_bytes=6)
    with map_read_only(stored.fd, size) as mapping:
        assert mapping[:] == b"onetwo"
        check_digest(mapping, stored.digest)
    assert bool(stored.digest) is is_secret(stored.fd)
    assert os.get_inheritable(stored.fd) is False


def test_secret_memory_has_no_other_way_in(stored: Stored) -> None:
    """Only a mapping reads it, and its size is what it is."""
    assert is_secret(stored.fd), "this kernel has no secret memory; tests want one that does"
    with pytest.raises(OSError, match="seek"):
        os.pread(stored.fd, 3, 0)
    with pytest.raises(OSError, match="Invalid"):
        os.ftruncate(stored.fd, 100)


def test_written_content_is_found_out(stored: Stored) -> None:
    """Whoever has the descriptor can write to it, and is found out by the digest."""
    with mmap.mmap(stored.fd, 6) as writable:
        writable[0:1] = b"0"
    with map_read_only(stored.fd, 6) as mapping:
        with pytest.raises(InvalidSnapshot, match="somebody wrote to it"):
            check_digest(mapping, stored.digest)
        check_digest(mapping, hashlib.sha256(b"0netwo").digest())


@pytest.mark.parametrize(
    ("digest", "max_bytes", "text"),
    [(b"", 6, "sealed"), (b"short", 6, "32 bytes"), (bytes(32), 5, "6 bytes")],
)
def test_secret_memory_is_checked_unread(
    stored: Stored, digest: bytes, max_bytes: int, text: str
) -> None:
    """Without a digest, with an odd one, or too large it is refused."""
    with pytest.raises(InvalidSnapshot, match=text):
        check_stored(stored.fd, digest, max_bytes=max_bytes)


def test_digest_makes_no_file_secret() -> None:
    """A file that can change is refused, whatever digest comes with it."""
    plain = os.memfd_create("plain")
    os.write(plain, b"content")
    try:
        with pytest.raises(InvalidSnapshot, match="not sealed"):
            check_stored(plain, bytes(32), max_bytes=100)
    finally:
        os.close(plain)


def test_low_limit_means_a_sealed_file(limit: list[int]) -> None:
    """Half of the limit of locked memory stays free, for a second look at everything."""
    limit[0] = 1 << 20
    small, large = store("test", [bytes(400 << 10)]), store("test", [bytes(600 << 10)])
    assert (is_secret(small.fd), is_secret(large.fd)) == (True, False)
    assert large.digest == b""
    os.close(small.fd)
    os.close(large.fd)


def test_kernel_without_secret_memory_is_served(
    limit: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot be had the file is sealed."""

    def missing() -> int:
        raise OSError(errno.ENOSYS, "no such call")

    assert limit
    monkeypatch.setattr(syscalls, "memfd_secret", missing)
    made = store("test", CONTENT)
    assert made.digest == b""
    assert check_stored(made.fd, b"", max_bytes=6) == 6
    os.close(made.fd)


def test_limit_that_is_reached_leaves_nothing(
    limit: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secret memory that cannot be mapped after all is closed (conftest), the file sealed."""
    assert limit

    def refuse(*_: object, **__: object) -> mmap.mmap:
        raise OSError(errno.EAGAIN, "try again")

    monkeypatch.setattr(mmap, "mmap", refuse)
    made = store("test", CONTENT)
    assert made.digest == b""
    with pytest.raises(InvalidSnapshot, match="raise RLIMIT_MEMLOCK"):
        map_read_only(made.fd, 6)
    os.close(made.fd)

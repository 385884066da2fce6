"""Memory files: how content travels between processes, once per node and never on disk.

There are two kinds. A *sealed* file (memfd_create(2)) can never change again, and whoever keeps it
locks it. *Secret* memory (memfd_secret(2)) is never swapped and out of reach of everybody who has
no descriptor, the kernel included; but it cannot be sealed, so a digest travels beside it.
"""

import errno
import fcntl
import hashlib
import mmap
import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from fusefs import syscalls
from fusefs.errors import InvalidSnapshot

# linux/memfd.h; os.MFD_NOEXEC_SEAL exists only in later Pythons
_MFD_NOEXEC_SEAL: Final = 0x8
REQUIRED_SEALS: Final = (
    fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
)
DIGEST_BYTES: Final = 32
# Every mapping of secret memory counts against RLIMIT_MEMLOCK. Half of it stays free: a node server
# that connects anew maps everything a second time before it lets go of the first.
_SHARE_OF_LIMIT: Final = 2


@attrs.frozen
class Stored:
    """A memory file with content.

    Attributes:
        fd: Its descriptor, the caller's.
        digest: What secret memory must hold; empty for a sealed file, which cannot change.
    """

    fd: int
    digest: bytes


def store(name: str, parts: Sequence[bytes]) -> Stored:
    """Return a memory file that holds `parts`: secret memory if it can be had, else a sealed file.

    Args:
        name: Names a sealed file; secret memory has no name.
        parts: The content, one part after another.
    """
    size = sum(map(len, parts))
    if _may_lock(size):
        try:
            return _secret(parts, size)
        except OSError:  # the kernel does not have it, or the limit is taken by another mapping
            pass
    return Stored(sealed_memfd(name, parts), b"")


def _may_lock(size: int) -> bool:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return limit == resource.RLIM_INFINITY or _SHARE_OF_LIMIT * (_locked_bytes() + size) <= limit


def _locked_bytes() -> int:
    """Return how much memory this process has locked; all of it when the kernel does not say."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmLck:"):
            return int(line.split()[1]) << 10
    return 0


def _secret(parts: Sequence[bytes], size: int) -> Stored:
    digest = hashlib.sha256()
    fd = syscalls.memfd_secret()
    try:
        os.ftruncate(fd, size)  # for good: the size of secret memory is set once
        with mmap.mmap(fd, size) as mapping:
            mapping.madvise(mmap.MADV_DONTDUMP)
            for part in parts:
                mapping.write(part)
                digest.update(part)
    except BaseException:
        os.close(fd)
        raise
    return Stored(fd, digest.digest())


def sealed_memfd(name: str, parts: Sequence[bytes]) -> int:
    """Return a descriptor of a memory file that holds `parts` and can never change again."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)  # before Linux 6.3
    try:
        for part in parts:
            _write_all(fd, part)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, REQUIRED_SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def is_secret(fd: int) -> bool:
    """Return whether `fd` is secret memory."""
    return syscalls.filesystem_type(fd) == syscalls.SECRETMEM_MAGIC


def check_stored(fd: int, digest: bytes, *, max_bytes: int) -> int:
    """Return the size of a memory file that may hold content, without reading any of it.

    Raises:
        InvalidSnapshot: `fd` is neither sealed nor secret memory with a digest, is empty or larger
            than `max_bytes`.
    """
    if not digest or not is_secret(fd):
        return check_sealed(fd, max_bytes=max_bytes)
    if len(digest) != DIGEST_BYTES:
        message = f"a digest has {DIGEST_BYTES} bytes, this one {len(digest)}"
        raise InvalidSnapshot(message)
    return _checked_size(fd, max_bytes)


def check_sealed(fd: int, *, max_bytes: int) -> int:
    """Return the size of the sealed memory file `fd`, without reading any of it.

    Raises:
        InvalidSnapshot: `fd` is no memory file, is not sealed, is empty or larger than `max_bytes`.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        message = "the descriptor is not a memory file that can be sealed"
        raise InvalidSnapshot(message) from error
    if seals & REQUIRED_SEALS != REQUIRED_SEALS:
        message = f"the memory file is not sealed (seals {seals:#x})"
        raise InvalidSnapshot(message)
    return _checked_size(fd, max_bytes)


def _checked_size(fd: int, max_bytes: int) -> int:
    size = os.fstat(fd).st_size
    if not 0 < size <= max_bytes:
        message = f"the memory file has {size} bytes, allowed are 1 to {max_bytes}"
        raise InvalidSnapshot(message)
    return size


def map_read_only(fd: int, size: int) -> mmap.mmap:
    """Map a memory file for reading, left out of core dumps.

    Raises:
        InvalidSnapshot: It cannot be mapped: the limit of locked memory, which secret memory counts
            against, is too low.
    """
    try:
        mapping = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
    except OSError as error:
        message = f"{size} bytes cannot be mapped ({error.strerror}); raise RLIMIT_MEMLOCK"
        raise InvalidSnapshot(message) from error
    mapping.madvise(mmap.MADV_DONTDUMP)
    return mapping


def check_digest(mapping: mmap.mmap, digest: bytes) -> None:
    """Raise `InvalidSnapshot` unless `mapping` holds what `digest` says; an empty one says nothing.

    Whoever has a descriptor of secret memory can write to it.
    """
    if digest and hashlib.sha256(mapping).digest() != digest:
        message = "the content is not what was sealed: somebody wrote to it"
        raise InvalidSnapshot(message)

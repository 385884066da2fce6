"""Sealed memory files: how content travels between processes, once per node and never on disk."""

import errno
import fcntl
import mmap
import os
from typing import Final

from fusefs.errors import InvalidSnapshot

# linux/memfd.h; os.MFD_NOEXEC_SEAL exists only in later Pythons
_MFD_NOEXEC_SEAL: Final = 0x8
REQUIRED_SEALS: Final = (
    fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
)


def sealed_memfd(name: str, parts: list[bytes]) -> int:
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


def check_sealed(fd: int, *, max_bytes: int) -> int:
    """Return the size of the sealed memory file `fd`, without reading any of it.

    Raises:
        InvalidSnapshot: `fd` is no memory file, is not sealed, is empty or larger than `max_bytes`.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        message = "the descriptor is not a memory file"
        raise InvalidSnapshot(message) from error
    if seals & REQUIRED_SEALS != REQUIRED_SEALS:
        message = f"the memory file is not sealed (seals {seals:#x})"
        raise InvalidSnapshot(message)
    size = os.fstat(fd).st_size
    if not 0 < size <= max_bytes:
        message = f"the memory file has {size} bytes, allowed are 1 to {max_bytes}"
        raise InvalidSnapshot(message)
    return size


def map_read_only(fd: int, size: int) -> mmap.mmap:
    """Map a sealed file for reading, left out of core dumps."""
    mapping = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
    mapping.madvise(mmap.MADV_DONTDUMP)
    return mapping

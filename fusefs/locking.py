"""Keeping pages of a memory file out of swap, through a mapping that is never read."""

import ctypes
import os
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_PROT_READ: Final = 1
_MAP_SHARED: Final = 1
_MAP_FAILED: Final = ctypes.c_void_p(-1).value
_MADV_DONTFORK: Final = 10
_MADV_DONTDUMP: Final = 16


class LockedPages:
    """A mapping that exists to lock pages: never read, not in children, not in core dumps."""

    def __init__(self, fd: int, size: int) -> None:
        """Map and lock the file."""
        self._size = size
        self._address = _libc.mmap(None, size, _PROT_READ, _MAP_SHARED, fd, 0)
        if self._address == _MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, f"mmap: {os.strerror(number)}")
        try:
            for advice in (_MADV_DONTFORK, _MADV_DONTDUMP):
                self._check("madvise", _libc.madvise(self._pointer, size, advice))
            self._check("mlock", _libc.mlock(self._pointer, size))
        except OSError:
            self.release()
            raise

    @property
    def _pointer(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._address)

    @staticmethod
    def _check(what: str, result: int) -> None:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")

    def release(self) -> None:
        """Unmap, which unlocks."""
        self._check("munmap", _libc.munmap(self._pointer, self._size))

"""FUSE_INIT on the wire: what the kernel offers, and the flag libfuse does not know.

Layouts and bits: ``include/uapi/linux/fuse.h``. The kernel sends INIT once in the life of a
connection, so its bytes and our reply are kept and replayed to every later worker of the volume.
"""

import struct
from typing import Final

IN_HEADER: Final = struct.Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid ext_len pad
_INIT_IN: Final = struct.Struct("=IIIII")  # major minor max_readahead flags flags2
_OUT_HEADER: Final = struct.Struct("=IiQ")  # len error unique
OPCODE_INIT: Final = 26
NOTIFY_RESEND: Final = 7
NOTIFY_INVAL_ENTRY: Final = 3
READ_BUFFER_BYTES: Final = 2 << 20  # the kernel refuses less than max_write and a header

FUSE_CACHE_SYMLINKS: Final = 1 << 23
FUSE_INIT_EXT: Final = 1 << 30
FUSE_HAS_RESEND: Final = 1 << 39
_REPLY_FLAGS_AT: Final = _OUT_HEADER.size + 12  # after major, minor, max_readahead


def offered_flags(request: bytes) -> int:
    """Return the 64 flag bits of an INIT request.

    Raises:
        ValueError: `request` is no INIT request.
    """
    if len(request) < IN_HEADER.size + _INIT_IN.size:
        message = "an INIT request was expected, the kernel sent something shorter"
        raise ValueError(message)
    if IN_HEADER.unpack_from(request)[1] != OPCODE_INIT:
        message = "an INIT request was expected, the kernel sent another one"
        raise ValueError(message)
    fields: tuple[int, ...] = _INIT_IN.unpack_from(request, IN_HEADER.size)
    low, high = fields[3:]
    return low | high << 32 if low & FUSE_INIT_EXT else low


def with_cached_symlinks(reply: bytes, offered: int) -> bytes:
    """Return `reply` with FUSE_CACHE_SYMLINKS set when the kernel offered it.

    Without it each walk through ``..data`` costs a READLINK; a link node never changes.
    """
    edited = bytearray(reply)
    (flags,) = struct.unpack_from("=I", reply, _REPLY_FLAGS_AT)
    struct.pack_into("=I", edited, _REPLY_FLAGS_AT, flags | (offered & FUSE_CACHE_SYMLINKS))
    return bytes(edited)


def resend() -> bytes:
    """Return the notification that makes the kernel send again what a dead worker had taken."""
    return _OUT_HEADER.pack(_OUT_HEADER.size, NOTIFY_RESEND, 0)


def invalidate_entry(parent: int, name: bytes) -> bytes:
    """Return the notification that makes the kernel forget a name.

    It may block while a request on `parent` is under way: never write it from a worker.
    """
    body = struct.pack("=QII", parent, len(name), 0) + name + b"\0"
    return _OUT_HEADER.pack(_OUT_HEADER.size + len(body), NOTIFY_INVAL_ENTRY, 0) + body

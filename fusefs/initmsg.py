"""FUSE_INIT on the wire: what the kernel offers, and the flags libfuse does not know.

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
NOTIFY_INVAL_INODE: Final = 2
NOTIFY_INVAL_ENTRY: Final = 3
READ_BUFFER_BYTES: Final = 2 << 20  # the kernel refuses less than max_write and a header

FUSE_MAX_PAGES: Final = 1 << 22
FUSE_CACHE_SYMLINKS: Final = 1 << 23
FUSE_INIT_EXT: Final = 1 << 30
FUSE_HAS_RESEND: Final = 1 << 39
FUSE_ALLOW_IDMAP: Final = 1 << 40
_REPLY_FLAGS_AT: Final = _OUT_HEADER.size + 12  # after major, minor, max_readahead
_REPLY_FLAGS2_AT: Final = _OUT_HEADER.size + 32


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


def relayed(reply: bytes, offered: int, *, user_namespace: bool) -> bytes:
    """Return `reply` as the kernel gets it, with what libfuse does not know and was offered.

    Without FUSE_CACHE_SYMLINKS each walk through ``..data`` costs a READLINK; a link node never
    changes. With FUSE_ALLOW_IDMAP a container runtime may map the ids of the mount to those of a
    pod's user namespace; requests carry no uid and gid then. Without FUSE_MAX_PAGES the kernel
    reads 128 KiB at a time: a reply must fit one packet of a socket pair (`gate`).
    """
    added = offered & FUSE_CACHE_SYMLINKS
    if user_namespace and offered & FUSE_ALLOW_IDMAP:
        added |= FUSE_INIT_EXT | FUSE_ALLOW_IDMAP
    edited = bytearray(reply)
    for place, bits in ((_REPLY_FLAGS_AT, added & 0xFFFFFFFF), (_REPLY_FLAGS2_AT, added >> 32)):
        if bits:
            (flags,) = struct.unpack_from("=I", reply, place)
            struct.pack_into("=I", edited, place, flags | bits)
    (flags,) = struct.unpack_from("=I", edited, _REPLY_FLAGS_AT)
    struct.pack_into("=I", edited, _REPLY_FLAGS_AT, flags & ~FUSE_MAX_PAGES)
    return bytes(edited)


def allows_idmap(reply: bytes) -> bool:
    """Return whether a reply to INIT, as the kernel got it, lets ids be mapped.

    A reply that is given back may be anything; one that is too short allows nothing.
    """
    if len(reply) < _REPLY_FLAGS2_AT + 4:
        return False
    (low,) = struct.unpack_from("=I", reply, _REPLY_FLAGS_AT)
    (high,) = struct.unpack_from("=I", reply, _REPLY_FLAGS2_AT)
    return bool(low & FUSE_INIT_EXT and high << 32 & FUSE_ALLOW_IDMAP)


def error(unique: int, number: int) -> bytes:
    """Return the reply that a request has failed."""
    return _OUT_HEADER.pack(_OUT_HEADER.size, -number, unique)


def resend() -> bytes:
    """Return the notification that makes the kernel send again what a dead worker had taken."""
    return _OUT_HEADER.pack(_OUT_HEADER.size, NOTIFY_RESEND, 0)


def invalidate_attributes(node: int) -> bytes:
    """Return the notification that makes the kernel ask again for the attributes of a node."""
    body = struct.pack("=Qqq", node, -1, 0)
    return _OUT_HEADER.pack(_OUT_HEADER.size + len(body), NOTIFY_INVAL_INODE, 0) + body


def invalidate_content(node: int) -> bytes:
    """Return the notification that makes the kernel drop attributes and cached pages of a node.

    It may block while a page is being read: never write it from a worker.
    """
    body = struct.pack("=Qqq", node, 0, 0)  # a length of 0 means all
    return _OUT_HEADER.pack(_OUT_HEADER.size + len(body), NOTIFY_INVAL_INODE, 0) + body


def invalidate_entry(parent: int, name: bytes) -> bytes:
    """Return the notification that makes the kernel forget a name.

    It may block while a request on `parent` is under way: never write it from a worker.
    """
    body = struct.pack("=QII", parent, len(name), 0) + name + b"\0"
    return _OUT_HEADER.pack(_OUT_HEADER.size + len(body), NOTIFY_INVAL_ENTRY, 0) + body

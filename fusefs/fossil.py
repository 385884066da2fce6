"""The last answers of a volume, in the kernel's own words, while it is frozen.

A frozen volume has no process: the kernel opens and lists by itself once OPEN and OPENDIR were
answered with ENOSYS, and reads from its caches. From then on it asks without handles, and pyfuse3
does not say which node such a request is about; so the requests of these last milliseconds are
answered here, from the same table. Layouts: ``include/uapi/linux/fuse.h``.
"""

import contextlib
import errno
import logging
import os
import stat
import struct
from collections.abc import Callable
from typing import Final

import trio

from fusefs import initmsg
from fusefs.attributes import Attributes
from fusefs.errnos import errno_of
from fusefs.errors import NodeError, NoSuchName
from fusefs.gate import Gate
from fusefs.nodeids import Handle, split
from fusefs.nodes import NodeTable

log = logging.getLogger(__name__)

CACHED_S: Final = 10**8
BLOCK_BYTES: Final = 4096
NAME_MAX: Final = 255
_FILE_TYPES: Final = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK}

LOOKUP: Final = 1
FORGET: Final = 2
GETATTR: Final = 3
READLINK: Final = 5
READ: Final = 15
STATFS: Final = 17
RELEASE: Final = 18
READDIR: Final = 28
RELEASEDIR: Final = 29
BATCH_FORGET: Final = 42
READDIRPLUS: Final = 44
_INTERRUPT: Final = 36
_UNANSWERED: Final = (FORGET, BATCH_FORGET, _INTERRUPT)
# What learns from ENOSYS never to ask again, and what would change the volume.
_UNKNOWN: Final = frozenset({14, 20, 22, 23, 25, 27, 30, 34, 46})  # OPEN … OPENDIR, ACCESS, LSEEK

_REPLY: Final = struct.Struct("=IiQ")  # len error unique
_ATTR: Final = struct.Struct("=6Q10I")
_ENTRY: Final = struct.Struct("=4Q2I")  # nodeid generation entry_valid attr_valid, and their ns
_ATTR_HEAD: Final = struct.Struct("=Q2I")  # attr_valid and its ns
_DIRENT: Final = struct.Struct("=2Q2I")  # ino off namelen type
_READ_IN: Final = struct.Struct("=2QI")  # fh offset size
_FH: Final = struct.Struct("=Q")
_BATCH: Final = struct.Struct("=2I")
_FORGET_ONE: Final = struct.Struct("=2Q")
_STATFS: Final = struct.Struct("=5Q4I24x")


class Fossil:
    """Answers requests of a volume that is being frozen."""

    def __init__(self, table: NodeTable) -> None:
        """Answer from `table`, which changes no more."""
        self._table = table
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            LOOKUP: self._lookup,
            GETATTR: self._getattr,
            READLINK: lambda node, _: self._table.link_target(node),
            READ: self._read,
            STATFS: self._statfs,
            RELEASE: self._release,
            RELEASEDIR: self._release,
            READDIR: lambda node, body: self._list(node, body, plus=False),
            READDIRPLUS: lambda node, body: self._list(node, body, plus=True),
        }

    async def serve(self, gate: Gate, number: int, answered: Callable[[], None]) -> None:
        """Answer the kernel until the connection ends or the gate is closed.

        Args:
            gate: Lets requests through.
            number: The descriptor that requests come from; the session's.
            answered: Called after each request.
        """
        buffer = bytearray(initmsg.READ_BUFFER_BYTES)
        while True:
            try:
                await gate.wait_readable(number)
                length = os.readv(number, [buffer])
            except trio.ClosedResourceError:
                return
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno not in (errno.EAGAIN, errno.EINTR, errno.ENOENT):
                    raise
                continue
            reply = self.answer(bytes(memoryview(buffer)[:length]))
            if reply is not None:
                with contextlib.suppress(FileNotFoundError):  # whoever asked has been killed
                    os.write(number, reply)
            answered()

    def answer(self, request: bytes) -> bytes | None:
        """Return the reply to a request, None to one that gets none."""
        _, opcode, unique, node, *_ = initmsg.IN_HEADER.unpack_from(request)
        body = request[initmsg.IN_HEADER.size :]
        try:
            if opcode in _UNANSWERED:
                self._forget(opcode, node, body)
                return None
            if opcode not in self._answers:
                return _error(unique, errno.ENOSYS if opcode in _UNKNOWN else errno.EROFS)
            payload = self._answers[opcode](node, body)
        except NodeError as error:
            return _error(unique, errno_of(error))
        except Exception:  # a defect of ours; the caller must not wait for ever
            log.exception("a request of a frozen volume failed", extra={"opcode": opcode})
            return None if opcode in _UNANSWERED else _error(unique, errno.EIO)
        return _REPLY.pack(_REPLY.size + len(payload), 0, unique) + payload

    def _lookup(self, parent: int, body: bytes) -> bytes:
        name = body.rstrip(b"\0")
        if name in (b".", b".."):
            raise NoSuchName
        node = self._table.lookup(parent, name)
        return _entry(self._table.attributes(node))

    def _forget(self, opcode: int, node: int, body: bytes) -> None:
        if opcode == FORGET:
            self._table.count_lookup(node, -_FH.unpack_from(body)[0])
        elif opcode == BATCH_FORGET:
            count, _ = _BATCH.unpack_from(body)
            for number in range(count):
                one, looked_up = _FORGET_ONE.unpack_from(
                    body, _BATCH.size + number * _FORGET_ONE.size
                )
                self._table.count_lookup(one, -looked_up)

    def _getattr(self, node: int, _: bytes) -> bytes:
        return _ATTR_HEAD.pack(CACHED_S, 0, 0) + _attr(self._table.attributes(node))

    def _read(self, node: int, body: bytes) -> bytes:
        number, offset, size = _READ_IN.unpack_from(body)
        if number:
            handle = Handle.unpack(number)
            return self._table.read(handle.generation, handle.local, offset, size)
        generation, entry = self._table.file(node)
        return self._table.read(generation, entry.node, offset, size)

    def _release(self, _: int, body: bytes) -> bytes:
        (number,) = _FH.unpack_from(body)
        if number:
            self._table.released(Handle.unpack(number).generation)
        return b""

    def _statfs(self, _: int, __: bytes) -> bytes:
        size, files = self._table.totals()
        blocks = max(1, -(-size // BLOCK_BYTES))
        return _STATFS.pack(blocks, 0, 0, max(1, files), 0, BLOCK_BYTES, NAME_MAX, BLOCK_BYTES, 0)

    def _list(self, node: int, body: bytes, *, plus: bool) -> bytes:
        number, offset, size = _READ_IN.unpack_from(body)
        if number:
            handle = Handle.unpack(number)
        else:
            generation, local = split(node)
            handle = Handle(
                generation=generation or self._table.current, local=local, live=not generation
            )
        entries = self._table.listing(handle.generation, handle.local, live=handle.live)
        listed = bytearray()
        for position, (name, child) in enumerate(entries, start=1):
            if position <= offset:
                continue
            attributes = self._table.attributes(child)
            entry = _dirent(name, attributes, position)
            if plus:
                entry = _entry(attributes) + entry
            if len(listed) + len(entry) > size:
                break
            if plus:
                self._table.count_lookup(child)
            listed += entry
        return bytes(listed)


def _error(unique: int, number: int) -> bytes:
    return _REPLY.pack(_REPLY.size, -number, unique)


def _attr(attributes: Attributes) -> bytes:
    seconds, nanoseconds = divmod(attributes.time_ns, 10**9)
    return _ATTR.pack(
        attributes.node,
        attributes.size,
        -(-attributes.size // 512),
        *(seconds,) * 3,
        *(nanoseconds,) * 3,
        _FILE_TYPES[attributes.kind] | attributes.mode,
        attributes.links,
        attributes.uid,
        attributes.gid,
        0,
        BLOCK_BYTES,
        0,
    )


def _entry(attributes: Attributes) -> bytes:
    return _ENTRY.pack(attributes.node, 0, CACHED_S, CACHED_S, 0, 0) + _attr(attributes)


def _dirent(name: bytes, attributes: Attributes, position: int) -> bytes:
    kind = _FILE_TYPES[attributes.kind] >> 12
    head = _DIRENT.pack(attributes.node, position, len(name), kind) + name
    return head + bytes(-len(head) % 8)

"""Snapshots: the immutable content of one volume at one generation.

A snapshot is one memory file: a magic, the length of the index, the index (msgpack), the
bytes of all files one after another. Publishing a generation is passing its descriptor, so a node
holds one copy of a secret at rest. Node ids are given out when sealing and stand in the index:
workers of every version agree on them, and a path keeps its id for ever, also across a removal.
"""

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, NoReturn, Self

import attrs
import msgspec
from typing_extensions import override

from fusefs.errors import InvalidSnapshot
from fusefs.memory import check_digest, check_stored, map_read_only, store
from fusefs.nodeids import ROOT_NODE
from fusefs.plan import Plan, steps_between
from fusefs.tree import check_tree, directories

DIRECTORY_MODE: Final = 0o755
MAX_SNAPSHOT_BYTES: Final = 64 << 20
_MAGIC: Final = b"akvfs\x00\x00\x01"  # the last byte is the version of the layout
_HEADER: Final = struct.Struct("<8sI")
_Natural = Annotated[int, msgspec.Meta(ge=0)]


@attrs.frozen(kw_only=True)
class FileSpec:
    """One file that a volume shall show."""

    path: str
    content: bytes = attrs.field(repr=lambda content: f"<secret {len(content)} bytes>")
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    object_id: str = ""
    object_version: str = ""

    @override
    def __reduce_ex__(self, protocol: object) -> NoReturn:
        message = "a secret is not pickled or copied: it would be printed, and outlive its use"
        raise TypeError(message)


class FileEntry(msgspec.Struct, frozen=True, array_like=True):
    """A file of a snapshot; `offset` counts from the start of the payload, times are Unix ns."""

    path: str
    node: int
    offset: _Natural
    size: _Natural
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    object_id: str
    object_version: str


class DirectoryEntry(msgspec.Struct, frozen=True, array_like=True):
    """A directory of a snapshot; the root has the empty path and node 1."""

    path: str
    node: int
    gid: int


class _Index(msgspec.Struct, array_like=True):
    """What stands before the payload; `nodes` maps "path" or "path/" to ids ever given out."""

    generation: int
    changed_ns: int
    files: list[FileEntry]
    directories: list[DirectoryEntry]
    nodes: dict[str, int]


class Snapshot:
    """A mapped snapshot. Closing it unmaps and closes its descriptor.

    Attributes:
        fd: The memory file; owned by this object.
        digest: What it must hold where it is secret memory; empty where it is sealed.
        generation: Counts up from 1.
        changed_ns: When this generation was sealed, Unix time in nanoseconds.
    """

    def __init__(
        self, fd: int, mapping: mmap.mmap, index: _Index, payload: int, digest: bytes
    ) -> None:
        """Use `map` or `seal` instead."""
        self.fd = fd
        self.digest = digest
        self.generation = index.generation
        self.changed_ns = index.changed_ns
        self.files: Mapping[str, FileEntry] = {entry.path: entry for entry in index.files}
        self.directories: Mapping[str, DirectoryEntry] = {
            entry.path: entry for entry in index.directories
        }
        self.nodes: Mapping[str, int] = index.nodes
        self.size = len(mapping)
        self._payload = payload
        self._mapping = mapping

    @classmethod
    def map(cls, fd: int, digest: bytes = b"", *, max_bytes: int = MAX_SNAPSHOT_BYTES) -> Self:
        """Map the snapshot in `fd`, which this object owns from now on, also on failure.

        Secret memory comes with its digest, a sealed file needs none.

        Raises:
            InvalidSnapshot: Wrong seals, digest, size, magic, or an index that does not fit the
                payload.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            size = check_stored(fd, digest, max_bytes=max_bytes)
            mapping = map_read_only(fd, size)
            undo.callback(mapping.close)
            check_digest(mapping, digest)
            index, payload = _read_index(mapping)
            undo.pop_all()
        return cls(fd, mapping, index, payload, digest)

    def check_intact(self) -> None:
        """Check that nobody has written to the content since it was sealed.

        Raises:
            InvalidSnapshot: Somebody has.
        """
        check_digest(self._mapping, self.digest)

    def entries(self) -> Iterator[FileEntry]:
        """Yield every file, in the order of the index."""
        return iter(self.files.values())

    def content(self, path: str) -> bytes:
        """Return a copy of the bytes of the file at `path`."""
        entry = self.files[path]
        return self.read(entry, 0, entry.size)

    def read(self, entry: FileEntry, offset: int, length: int) -> bytes:
        """Return up to `length` bytes of `entry` from `offset`; empty at or past its end."""
        start = min(offset, entry.size)
        end = min(offset + length, entry.size)
        return self._mapping[
            self._payload + entry.offset + start : self._payload + entry.offset + end
        ]

    def copy_to(self, fd: int, entry: FileEntry) -> None:
        """Write the bytes of `entry` to `fd`, without a copy on the heap."""
        start = self._payload + entry.offset
        with memoryview(self._mapping) as whole, whole[start : start + entry.size] as part:
            written = 0
            while written < entry.size:
                with part[written:] as rest:
                    written += os.write(fd, rest)

    def close(self) -> None:
        """Unmap and close. The object answers nothing afterwards."""
        self._mapping.close()
        os.close(self.fd)

    @override
    def __repr__(self) -> str:
        """Say which snapshot, never what is in it."""
        return f"<Snapshot generation={self.generation} files={len(self.files)}>"


@attrs.frozen(kw_only=True)
class Sealed:
    """A new snapshot and the plan that leads to it from the one before."""

    snapshot: Snapshot
    plan: bytes = attrs.field(repr=False)


def seal(files: Sequence[FileSpec], *, previous: Snapshot | None, now_ns: int) -> Sealed:
    """Seal `files` as the generation after `previous`, or as generation 1.

    A file that is the same as in `previous` keeps its change time; a path keeps its node id.

    Args:
        files: What the volume shall show; their paths need no order.
        previous: The last generation of the same volume.
        now_ns: Unix time in nanoseconds.

    Raises:
        InvalidTree: The paths do not form a tree.
        InvalidSnapshot: The content is larger than a snapshot may be.
    """
    check_tree([spec.path for spec in files])
    nodes = dict(previous.nodes) if previous else {}
    index = _Index(
        generation=previous.generation + 1 if previous else 1,
        changed_ns=now_ns,
        files=_file_entries(files, previous, nodes, now_ns),
        directories=_directory_entries(files, nodes),
        nodes=nodes,
    )
    encoded = msgspec.msgpack.encode(index)
    header = _HEADER.pack(_MAGIC, len(encoded))
    parts = [header, encoded, *(spec.content for spec in files)]
    stored = store("akvfs-snapshot", parts)
    snapshot = Snapshot.map(stored.fd, stored.digest)
    return Sealed(snapshot=snapshot, plan=_plan(files, previous, snapshot).encode())


def differs(files: Sequence[FileSpec], snapshot: Snapshot) -> bool:
    """Return whether sealing `files` would give other content, modes, owners or versions."""
    return len(files) != len(snapshot.files) or any(
        _attributes_differ(spec, snapshot) or _version_differs(spec, snapshot) for spec in files
    )


def _attributes_differ(spec: FileSpec, snapshot: Snapshot) -> bool:
    entry = snapshot.files.get(spec.path)
    return (
        entry is None
        or (entry.size, entry.mode, entry.uid, entry.gid)
        != (len(spec.content), spec.mode, spec.uid, spec.gid)
        or snapshot.content(spec.path) != spec.content
    )


def _version_differs(spec: FileSpec, snapshot: Snapshot) -> bool:
    entry = snapshot.files[spec.path]
    return (entry.object_id, entry.object_version) != (spec.object_id, spec.object_version)


def _node_of(nodes: dict[str, int], key: str) -> int:
    """Return the id of a path for life; a directory's key ends in a slash, a file's does not."""
    return nodes.setdefault(key, ROOT_NODE + 1 + len(nodes))


def _file_entries(
    files: Sequence[FileSpec], previous: Snapshot | None, nodes: dict[str, int], now_ns: int
) -> list[FileEntry]:
    entries = []
    offset = 0
    for spec in files:
        unchanged = previous is not None and not _attributes_differ(spec, previous)
        entries.append(
            FileEntry(
                path=spec.path,
                node=_node_of(nodes, spec.path),
                offset=offset,
                size=len(spec.content),
                mode=spec.mode,
                uid=spec.uid,
                gid=spec.gid,
                mtime_ns=previous.files[spec.path].mtime_ns if previous and unchanged else now_ns,
                object_id=spec.object_id,
                object_version=spec.object_version,
            )
        )
        offset += len(spec.content)
    return entries


def _directory_entries(files: Sequence[FileSpec], nodes: dict[str, int]) -> list[DirectoryEntry]:
    """Directories belong to root; their group is that of the files, so fsGroup holds for them."""
    gid = files[0].gid if files else 0
    entries = [DirectoryEntry(path="", node=ROOT_NODE, gid=gid)]
    entries.extend(
        DirectoryEntry(path=path, node=_node_of(nodes, path + "/"), gid=gid)
        for path in directories(spec.path for spec in files)
    )
    return entries


def _kinds(snapshot: Snapshot | None) -> dict[str, bool]:
    if snapshot is None:
        return {}
    kinds = dict.fromkeys(snapshot.files, False)
    kinds.update((path, True) for path in snapshot.directories if path)
    return kinds


def _plan(files: Sequence[FileSpec], previous: Snapshot | None, snapshot: Snapshot) -> Plan:
    if previous is None:
        return Plan(generation=snapshot.generation, previous=0)
    return Plan(
        generation=snapshot.generation,
        previous=previous.generation,
        steps=steps_between(_kinds(previous), _kinds(snapshot)),
        changed=tuple(
            spec.path
            for spec in files
            if spec.path in previous.files and _attributes_differ(spec, previous)
        ),
    )


def _read_index(mapping: mmap.mmap) -> tuple[_Index, int]:
    """Return the index and where the payload starts."""
    header, size = mapping[: _HEADER.size], len(mapping)
    if len(header) < _HEADER.size or header[: len(_MAGIC)] != _MAGIC:
        message = "the memory file does not start like a snapshot of this version"
        raise InvalidSnapshot(message)
    _, length = _HEADER.unpack(header)
    payload = _HEADER.size + length
    try:
        index = msgspec.msgpack.decode(mapping[_HEADER.size : payload], type=_Index)
    except msgspec.DecodeError:
        message = "the index of the snapshot cannot be decoded"
        raise InvalidSnapshot(message) from None
    if any(payload + entry.offset + entry.size > size for entry in index.files):
        message = "the index of the snapshot points past its end"
        raise InvalidSnapshot(message)
    return index, payload

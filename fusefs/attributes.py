"""What stat shows of each kind of node. Pure functions of a snapshot."""

from typing import Literal

import attrs

from fusefs.generation import Generation
from fusefs.nodeids import ROOT_NODE
from fusefs.snapshot import DIRECTORY_MODE, FileEntry

Kind = Literal["file", "directory", "link"]


@attrs.frozen(kw_only=True)
class Attributes:
    """What stat shows of a node. `lasting` allows the kernel to cache it until it is told."""

    node: int
    kind: Kind
    mode: int
    size: int
    links: int
    uid: int
    gid: int
    time_ns: int
    lasting: bool = True


def of_prime(node: int) -> Attributes:
    """Describe the priming file, which the kernel must not remember."""
    return Attributes(
        node=node, kind="file", mode=0o444, size=0, links=1, uid=0, gid=0, time_ns=0, lasting=False
    )


def of_link(node: int, generation: int, kept: Generation | None) -> Attributes:
    """Describe the ``..data`` link of a generation; it carries the generation's time."""
    return Attributes(
        node=node,
        kind="link",
        mode=0o777,
        size=len(b"..%d" % generation),
        links=1,
        uid=0,
        gid=0,
        time_ns=kept.snapshot.changed_ns if kept else 0,
    )


def of_file(node: int, entry: FileEntry) -> Attributes:
    """Describe a file as its snapshot has it."""
    return Attributes(
        node=node,
        kind="file",
        mode=entry.mode,
        size=entry.size,
        links=1,
        uid=entry.uid,
        gid=entry.gid,
        time_ns=entry.mtime_ns,
    )


def of_directory(node: int, kept: Generation, local: int) -> Attributes:
    """Describe a directory.

    Links are 2 + subdirectories, since `find` looks for no more than that; the live root lists the
    directory of the generation that it shows, too.
    """
    subdirectories = sum(child in kept.directories for child in kept.children[local].values())
    listed = 1 if node == ROOT_NODE else 0
    return Attributes(
        node=node,
        kind="directory",
        mode=DIRECTORY_MODE,
        size=0,
        links=2 + subdirectories + listed,
        uid=0,
        gid=kept.directories[local].gid,
        time_ns=kept.snapshot.changed_ns,
    )

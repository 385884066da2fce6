"""What every namespace of the node must show of the volumes, and what none may show.

A volume has one superblock, told by its device number. The keeper holds it by a private mount that
is writable in principle; everybody else has read-only clones: the target on the host, what kubelet
and the container runtime bind from there, and the copies that a new namespace begins with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from fusefs import mountinfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cluster.node import Node

TARGETS: Final = "/kubernetes.io~csi/"


@attrs.frozen(kw_only=True)
class Namespace:
    """A mount namespace of the node and our mounts in it.

    Attributes:
        programs: The names of the processes that have it.
    """

    identity: str
    programs: frozenset[str]
    mounts: tuple[mountinfo.Mount, ...]


def check(node: Node) -> int:
    """Check all mounts of ours in all namespaces and return the number of volumes.

    It looks at one namespace after the other, so nothing may be published meanwhile.

    Raises:
        AssertionError: Something is mounted where or as it must not be.
    """
    return judge(namespaces(node), host=_identity(node.path("/proc/1")))


def judge(found: Sequence[Namespace], *, host: str) -> int:
    """Check what is in the namespaces and return the number of volumes.

    Args:
        found: All of them.
        host: The identity of the one where kubelet is.

    Raises:
        AssertionError: Something is mounted where or as it must not be.
    """
    [seen_by_kubelet] = [each.mounts for each in found if each.identity == host]
    targets = [mount.device for mount in seen_by_kubelet if TARGETS in mount.target]
    devices = set(targets)
    assert len(targets) == len(devices), f"a volume has two targets, or two mounts on one: {found}"
    for mount in seen_by_kubelet:
        assert mount.device in devices, f"mounted, but at no target: {mount}"
        # In a container the runtime drops the last two.
        assert mount.options >= {"ro", "nosuid", "nodev"}, f"of other options: {mount}"
    holders = {each.identity: list(filter(_is_private, each.mounts)) for each in found}
    holders = {identity: private for identity, private in holders.items() if private}
    assert len(holders) == bool(devices), f"private mounts are in other namespaces: {holders}"
    for private in holders.values():
        held = sorted(mount.device for mount in private)
        assert held == sorted(devices), f"not one private mount for each volume: {private}"
        assert not any(mount.propagation for mount in private), f"not private: {private}"
    return len(devices)


def namespaces(node: Node) -> list[Namespace]:
    """Return every mount namespace of the node's processes, those of containers included."""
    programs: dict[str, set[str]] = {}
    tables: dict[str, str] = {}
    for process in node.path("/proc").glob("[0-9]*"):
        try:
            identity = _identity(process)
            name = (process / "comm").read_text(encoding="utf-8").strip()
            table = (process / "mountinfo").read_bytes().decode(errors="surrogateescape")
        except OSError:
            continue  # it has ended
        programs.setdefault(identity, set()).add(name)
        if table:  # of a process that is just ending it is empty
            tables[identity] = table
    return [
        Namespace(
            identity=identity,
            programs=frozenset(programs[identity]),
            mounts=tuple(_ours(table)),
        )
        for identity, table in tables.items()
    ]


def _identity(process: Path) -> str:
    return str((process / "ns" / "mnt").readlink())


def _ours(table: str) -> Iterator[mountinfo.Mount]:
    """Yield our mounts in a table; by type alone, since a wrong source is to be seen as well."""
    for mount in mountinfo.parse(table.split("\n")):
        if mount.filesystem == mountinfo.FILESYSTEM:
            yield mount


def _is_private(mount: mountinfo.Mount) -> bool:
    """Return whether a mount can be written through once its superblock is made writable."""
    return "ro" not in mount.options

"""The plan of a rotation: which names appear, which go, which files changed.

The node server computes it when it seals a snapshot. The keeper passes it on unread; the touch
child carries its steps out through the private mount, and the worker accepts exactly these
operations while the plan is in progress.

The steps are ordered: names that stand in the way of an addition go first, then additions (a
directory before what is in it), then all other removals (what is in a directory before it). Their
number so far is the whole progress of a plan, so a worker's successor needs one integer.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from fusefs.tree import parents

StepKind = Literal["mkdir", "create", "unlink", "rmdir"]

DATA_LINK: Final = "..data"
DATA_LINK_NEXT: Final = "..data_tmp"  # AtomicWriter's name; some watchers filter on it


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One name that appears or goes."""

    kind: StepKind
    path: str


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """What changes from generation `previous` (0: nothing before) to `generation`.

    Attributes:
        steps: Names that appear or go, in the order in which they must.
        changed: Files, present before and after, whose bytes or attributes differ.
    """

    generation: int
    previous: int
    steps: tuple[Step, ...] = ()
    changed: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return the wire form."""
        return msgspec.msgpack.encode(self)


def decode(data: bytes) -> Plan:
    """Return the plan in `data`.

    Raises:
        msgspec.DecodeError: `data` is not a plan.
    """
    return msgspec.msgpack.decode(data, type=Plan)


def steps_between(before: Mapping[str, bool], after: Mapping[str, bool]) -> tuple[Step, ...]:
    """Return the steps from one tree to the next; both map a path to "is a directory"."""
    added = [path for path in after if before.get(path) != after[path]]
    removed = [path for path in before if after.get(path) != before[path]]
    added.sort(key=lambda path: (path.count("/"), path))
    removed.sort(key=lambda path: (-path.count("/"), path))
    blocking = _below_or_at(removed, {path for path in added if path in before})
    return (
        *(_removal(path, before) for path in removed if path in blocking),
        *(Step("mkdir" if after[path] else "create", path) for path in added),
        *(_removal(path, before) for path in removed if path not in blocking),
    )


def _removal(path: str, before: Mapping[str, bool]) -> Step:
    return Step("rmdir" if before[path] else "unlink", path)


def _below_or_at(removed: list[str], changed_kind: set[str]) -> set[str]:
    """Return the removed paths at or below a path that comes back as another kind."""
    return {
        path for path in removed if path in changed_kind or changed_kind.intersection(parents(path))
    }

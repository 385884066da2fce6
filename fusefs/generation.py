"""One generation of a volume, indexed for look-ups, and the plan that leads to it.

Names follow the steps of a plan in progress, not the newest snapshot: a name that is to appear
stays hidden until its CREATE or MKDIR, one that goes stays until its UNLINK or RMDIR, and
``..data`` names the old generation until RENAME. Were it otherwise, the kernel would find the
operation done already and raise no inotify event.
"""

from typing import Literal

import attrs

from fusefs.plan import Plan, Step
from fusefs.snapshot import DirectoryEntry, FileEntry, Snapshot

Side = Literal["previous", "current", "nowhere", "unplanned"]


class Generation:
    """One snapshot, indexed by node and by name."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Index `snapshot`, which this object owns from now on."""
        self.snapshot = snapshot
        self.files = {entry.node: entry for entry in snapshot.entries()}
        self.directories = {entry.node: entry for entry in snapshot.directories.values()}
        self.children: dict[int, dict[bytes, int]] = {node: {} for node in self.directories}
        entries: list[FileEntry | DirectoryEntry] = [*self.directories.values()]
        entries.extend(self.files.values())
        for entry in entries:
            if entry.path:
                parent, _, name = entry.path.rpartition("/")
                self.children[snapshot.directories[parent].node][name.encode()] = entry.node

    def __contains__(self, local: int) -> bool:
        """Return whether this generation has the node."""
        return local in self.files or local in self.directories


@attrs.define
class Transition:
    """A plan in progress.

    Attributes:
        done: Steps carried out; one more after SYMLINK, and another one after RENAME.
    """

    plan: Plan
    done: int
    _steps_on: dict[str, list[int]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Index the steps by path: a look-up asks for one path."""
        self._steps_on = {}
        for number, step in enumerate(self.plan.steps):
            self._steps_on.setdefault(step.path, []).append(number)

    @property
    def linked(self) -> bool:
        """Whether the next ``..data`` exists under its temporary name."""
        return self.done == len(self.plan.steps) + 1

    @property
    def swung(self) -> bool:
        """Whether ``..data`` names the new generation."""
        return self.done > len(self.plan.steps) + 1

    def side_of(self, path: str) -> Side:
        """Return which side of the plan shows `path` now."""
        side: Side = "unplanned"
        for number in self._steps_on.get(path, ()):
            appears = _appears(self.plan.steps[number])
            if number < self.done:
                side = "current" if appears else "nowhere"
            elif side == "unplanned":
                side = "nowhere" if appears else "previous"
        return side

    def number_of(self, step: Step) -> int | None:
        """Return the place of `step` in the plan, None when it is not part of it."""
        numbers = self._steps_on.get(step.path, ())
        return next((number for number in numbers if self.plan.steps[number] == step), None)


def _appears(step: Step) -> bool:
    return step.kind in ("create", "mkdir")

"""Which generations of a volume matter: the one that it shows, and those on their way in."""

from collections import deque
from collections.abc import Sequence

from fusefs.effects import Rotation


class Lineage:
    """The generations of one volume.

    Attributes:
        acknowledged: The newest generation that every new open is known to see.
        rotation: The generation on its way in, until its plan is finished.
    """

    def __init__(self, acknowledged: int, rotations: Sequence[Rotation] = ()) -> None:
        """Begin with `acknowledged`, and `rotations` that wait their turn, oldest first."""
        self.acknowledged = acknowledged
        self.rotation: Rotation | None = None
        self._queue = deque(rotations)

    @property
    def served(self) -> int:
        """The generation that a new worker must start on: not one that still waits its turn."""
        return self.rotation.generation if self.rotation else self.acknowledged

    @property
    def newest(self) -> int:
        """The newest generation that has been handed in."""
        return self._queue[-1].generation if self._queue else self.served

    def spared(self) -> set[int]:
        """Return the generations that must be kept, whatever their age."""
        spared = {self.acknowledged, self.newest}
        if self.rotation:
            spared.update((self.rotation.generation, self.rotation.previous))
        spared.update(rotation.generation for rotation in self._queue)
        return spared

    def under_way(self) -> list[Rotation]:
        """Return the rotations whose plan is not known to be over, oldest first."""
        return [*([self.rotation] if self.rotation else []), *self._queue]

    @property
    def plan_in_progress(self) -> bytes | None:
        """The plan that a new worker must know of."""
        return self.rotation.plan if self.rotation else None

"""The last steps of a volume that outlives its keeper as a fossil: a state machine without I/O.

::

    telling -> filling -> draining -> (let go)

The worker is told to answer like a fossil, a child fills the kernel's caches, and files that were
open before are served until they are closed, or long enough. A worker that dies on the way takes
the volume back to the beginning: its successor answers with handles again.
"""

from typing import Final, Literal

from fusefs.effects import Drain, Effect, Fill, Fossilize, LetGo, RetryLater

RETRY_S: Final = 0.2


class Freezing:
    """The freeze of one volume.

    Attributes:
        step: What is awaited: the worker, the child, or the last reader.
    """

    def __init__(self) -> None:
        """Prepare; `begin` comes first."""
        self.step: Literal["telling", "filling", "draining"] = "telling"
        self._spoiled = False

    def begin(self) -> list[Effect]:
        """Tell the worker; called again for each new one, and after a while when that failed."""
        return [Fossilize()] if self.step == "telling" else []

    def worker_freezes(self) -> list[Effect]:
        """Take note that no new handle is given out any more."""
        if self.step != "telling":
            return []
        self.step = "filling"
        self._spoiled = False
        return [Fill()]

    def filled(self, *, succeeded: bool) -> list[Effect]:
        """Take note that the child has ended."""
        if self.step != "filling":
            return []
        if self._spoiled or not succeeded:
            self.step = "telling"
            return [RetryLater(RETRY_S)]
        self.step = "draining"
        return [Drain()]

    def drained(self) -> list[Effect]:
        """Let go: nobody uses a handle any more, or for too long."""
        return [LetGo()] if self.step == "draining" else []

    def worker_died(self) -> None:
        """Take note that what is being cached may come from a handle of the next worker."""
        if self.step == "filling":
            self._spoiled = True
        else:
            self.step = "telling"

    def effect_failed(self) -> None:
        """Go back to the beginning; `begin` comes after a while."""
        self.step = "telling"

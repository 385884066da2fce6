"""The generations of one volume that the keeper holds, and which of them may go.

A generation stays while it is the current one, while a plan leads from or to it, for a grace
period after it was superseded (a path walk may just have read ``..data``), and while the worker
says that it is in use, up to a budget of bytes and of number. Beyond the budget the oldest goes,
used or not.
"""

import mmap
import os
import resource
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final

import attrs

from fusefs.errors import OverBudget
from fusefs.locking import LockedPages
from fusefs.memory import check_stored, is_secret
from fusefs.snapshot import MAX_SNAPSHOT_BYTES
from fusefs.usage import MAX_GENERATIONS

GRACE_S: Final = 5.0
BUDGET_BYTES: Final = 128 << 20
_MARGIN: Final = 8  # generations; those on their way in need a slot as well


@attrs.define
class _Kept:
    fd: int
    size: int
    digest: bytes
    pages: LockedPages | None
    superseded_at: float | None = None

    @property
    def secret_bytes(self) -> int:
        """What a worker that maps it takes of its limit of locked memory."""
        return 0 if self.pages is not None else -(-self.size // mmap.PAGESIZE) * mmap.PAGESIZE


def mappable_bytes() -> float:
    """Return how much secret memory one volume may have: its worker maps all of it.

    Half of the limit, if there is one, stays free for generations on their way in.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return float("inf") if limit == resource.RLIM_INFINITY else limit / 2


class KeptGenerations:
    """All kept generations, oldest first, each locked in memory and unread."""

    def __init__(
        self,
        *,
        budget_bytes: int = BUDGET_BYTES,
        secret_bytes: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with none.

        Args:
            budget_bytes: What all may have together.
            secret_bytes: What those in secret memory may have; `mappable_bytes` by default.
            clock: Returns the time.
        """
        self._kept: dict[int, _Kept] = {}
        self._budget_bytes = budget_bytes
        self._secret_bytes = mappable_bytes() if secret_bytes is None else secret_bytes
        self._clock = clock

    def add(self, generation: int, fd: int, digest: bytes = b"") -> None:
        """Keep the snapshot in `fd`, which belongs to this object from now on, also on failure.

        Secret memory comes with its digest, and is locked by what it is; a sealed file needs none.

        Raises:
            InvalidSnapshot: The memory file may change, or is too large to be a snapshot.
            OverBudget: The node does not let so much memory be locked.
        """
        try:
            size = check_stored(fd, digest, max_bytes=MAX_SNAPSHOT_BYTES)
            try:
                pages = None if is_secret(fd) else LockedPages(fd, size)
            except OSError as error:
                message = f"{size} bytes of content cannot be locked in memory: {error.strerror}"
                raise OverBudget(message) from error
        except BaseException:
            os.close(fd)
            raise
        self._kept[generation] = _Kept(fd, size, digest, pages)

    @property
    def newest(self) -> int:
        """The highest generation kept."""
        return max(self._kept)

    @property
    def size(self) -> int:
        """The bytes of all."""
        return sum(kept.size for kept in self._kept.values())

    def generations(self) -> list[int]:
        """Return the generations kept, oldest first."""
        return sorted(self._kept)

    def descriptor(self, generation: int) -> int:
        """Return the descriptor of a kept generation; it stays this object's."""
        return self._kept[generation].fd

    def digest(self, generation: int) -> bytes:
        """Return the digest of a kept generation, empty where it is sealed."""
        return self._kept[generation].digest

    def digests(self) -> dict[int, bytes]:
        """Return the digests of all generations kept that have one."""
        return {number: kept.digest for number, kept in self._kept.items() if kept.digest}

    def descriptors(self, *, up_to: int) -> list[tuple[int, int]]:
        """Return the generations kept up to `up_to` with their descriptors, oldest first."""
        return [
            (generation, self._kept[generation].fd)
            for generation in self.generations()
            if generation <= up_to
        ]

    def supersede(self, current: int) -> None:
        """Note that every generation before `current` is no longer shown."""
        now = self._clock()
        for generation, kept in self._kept.items():
            if generation < current and kept.superseded_at is None:
                kept.superseded_at = now

    def removable(self, *, spare: Collection[int]) -> tuple[list[int], list[int]]:
        """Return the generations that may go if nobody uses them, and those that must go."""
        old = [
            (generation, kept)
            for generation, kept in sorted(self._kept.items())
            if generation not in spare and kept.superseded_at is not None
        ]
        excess_bytes = self.size - self._budget_bytes
        excess_count = len(self._kept) - (MAX_GENERATIONS - _MARGIN)
        excess_secret = sum(kept.secret_bytes for kept in self._kept.values()) - self._secret_bytes
        excess = []
        for generation, kept in old:
            if excess_bytes > 0 or excess_count > 0 or (kept.secret_bytes and excess_secret > 0):
                excess.append(generation)
                excess_bytes -= kept.size
                excess_count -= 1
                excess_secret -= kept.secret_bytes
        before = self._clock() - GRACE_S
        idle = [
            generation
            for generation, kept in old
            if kept.superseded_at is not None and kept.superseded_at <= before
        ]
        return [generation for generation in idle if generation not in excess], excess

    def drop(self, generations: Iterable[int], *, spare: Collection[int]) -> None:
        """Let go of generations that the worker has let go of."""
        for generation in generations:
            if generation in self._kept and generation not in spare:
                self._release(self._kept.pop(generation))

    def close(self) -> None:
        """Let go of all."""
        while self._kept:
            self._release(self._kept.popitem()[1])

    @staticmethod
    def _release(kept: _Kept) -> None:
        if kept.pages is not None:
            kept.pages.release()
        os.close(kept.fd)

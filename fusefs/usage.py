"""Which generations of a volume are in use, in a page that outlives the worker.

The worker counts, and says which generations may go; the keeper keeps the page for its successor
and reads nothing in it but whether the volume has been frozen. All that a lie can do is keep a
generation of the liar's own volume until the budget is spent, or end that volume. A worker that
dies between counting and answering makes a count drift upwards by one: that generation is kept
until the volume goes or the budget is spent.

Layout: generation of the plan in progress, steps of it done, one slot per generation, a mark when
the volume has been frozen, the journal.
"""

import fcntl
import mmap
import os
import struct
from typing import Final

from fusefs.journal import SLOT_BYTES, SLOTS, Journal

_HEADER: Final = struct.Struct("=QQ")
_SLOT: Final = struct.Struct("=QQQ")  # generation (0: free), lookup count, open handles
MAX_GENERATIONS: Final = 1000
_JOURNAL_AT: Final = 24576
_FROZEN: Final = b"frozen\0\0"
_FROZEN_AT: Final = _JOURNAL_AT - len(_FROZEN)
PAGE_BYTES: Final = _JOURNAL_AT + SLOTS * SLOT_BYTES
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

assert _HEADER.size + MAX_GENERATIONS * _SLOT.size <= _FROZEN_AT  # noqa: S101 - a constant of this file


class Usage:
    """The page of one volume, mapped. The worker is its only writer."""

    def __init__(self, fd: int) -> None:
        """Map the page in `fd`, which stays the caller's."""
        self._page = mmap.mmap(fd, PAGE_BYTES, mmap.MAP_SHARED)
        self._slots: dict[int, int] = {}
        self.reload()

    def reload(self) -> None:
        """Take note of what another worker has counted since."""
        self._slots = {
            generation: number
            for number in range(MAX_GENERATIONS)
            if (generation := self._read(number)[0])
        }

    def journal(self, number: int) -> Journal:
        """Return the journal as the worker `number` sees it."""
        return Journal(self._page, _JOURNAL_AT, number)

    @staticmethod
    def create() -> int:
        """Return a descriptor of an empty page."""
        fd = os.memfd_create("akvfs-usage", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, PAGE_BYTES)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
        return fd

    @staticmethod
    def is_page(fd: int) -> bool:
        """Return whether `fd` is a page that `create` made: a worker can map it for good."""
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError:
            return False
        sealed = seals & (_SEALS | fcntl.F_SEAL_WRITE) == _SEALS
        return sealed and os.fstat(fd).st_size >= PAGE_BYTES

    @staticmethod
    def mark_frozen(fd: int) -> None:
        """Mark the page in `fd`: its connection cannot be served as a volume any more."""
        os.pwrite(fd, _FROZEN, _FROZEN_AT)

    @staticmethod
    def is_frozen(fd: int) -> bool:
        """Return whether the page in `fd` is marked."""
        return os.pread(fd, len(_FROZEN), _FROZEN_AT) == _FROZEN

    @property
    def frozen(self) -> bool:
        """Whether the page is marked: no handle may be given out any more."""
        return self._page[_FROZEN_AT : _FROZEN_AT + len(_FROZEN)] == _FROZEN

    def close(self) -> None:
        """Unmap the page."""
        self._page.close()

    def progress(self, generation: int) -> int:
        """Return how many steps of the plan that leads to `generation` are done."""
        planned, done = _HEADER.unpack_from(self._page)
        return done if planned == generation else 0

    def set_progress(self, generation: int, done: int) -> None:
        """Remember that `done` steps of the plan that leads to `generation` are done."""
        if _HEADER.unpack_from(self._page)[0] != generation:
            # Two stores, so that a kill between them leaves a new plan at its start.
            _HEADER.pack_into(self._page, 0, 0, 0)
        _HEADER.pack_into(self._page, 0, generation, done)

    def add_lookups(self, generation: int, count: int) -> None:
        """Change the lookup count of all nodes of `generation` together by `count`."""
        self._add(generation, count, 0)

    def add_handles(self, generation: int, count: int) -> None:
        """Change the number of open handles on `generation` by `count`."""
        self._add(generation, 0, count)

    def in_use(self, generation: int) -> bool:
        """Return whether the kernel knows a node of `generation` or a handle is open on it."""
        number = self._slots.get(generation)
        return number is not None and any(self._read(number)[1:])

    def open_handles(self) -> int:
        """Return how many handles are open, on all generations together."""
        return sum(self._read(number)[2] for number in self._slots.values())

    def clear(self, generation: int) -> None:
        """Forget a generation that is kept no longer."""
        number = self._slots.pop(generation, None)
        if number is not None:
            self._write(number, 0, 0, 0)

    def _add(self, generation: int, lookups: int, handles: int) -> None:
        number = self._slots.get(generation)
        if number is None:
            if lookups <= 0 and handles <= 0:
                return  # forgotten after it was dropped by force; a slot would be lost for ever
            number = self._slots[generation] = self._free_slot()
            self._write(number, generation, 0, 0)
        _, known, opened = self._read(number)
        self._write(number, generation, max(0, known + lookups), max(0, opened + handles))

    def _free_slot(self) -> int:
        used = set(self._slots.values())
        return next(number for number in range(MAX_GENERATIONS) if number not in used)

    def _read(self, number: int) -> tuple[int, int, int]:
        generation, lookups, handles = _SLOT.unpack_from(self._page, self._offset(number))
        return generation, lookups, handles

    def _write(self, number: int, generation: int, lookups: int, handles: int) -> None:
        _SLOT.pack_into(self._page, self._offset(number), generation, lookups, handles)

    @staticmethod
    def _offset(number: int) -> int:
        return _HEADER.size + number * _SLOT.size

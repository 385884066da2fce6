"""The request that a worker has in work, where its successor finds it.

It lies behind the counts, in the memory file that outlives workers and keeper. The kernel writes it
there while it is taken, so there is no moment at which a request is taken and not noted down. Only
one request of a volume is in work at a time. There are two slots, since a worker that cannot be
killed may still write into its own while its successor serves.

A request has names of the volume in it, no content.
"""

import mmap
import struct
from typing import Final

SLOT_BYTES: Final = 4096  # two names at most and some numbers; more is not journaled
SLOTS: Final = 2
_LENGTH: Final = struct.Struct("=I")  # the first field of a request; 0 when nothing is in work


class Journal:
    """Both slots, as one worker sees them.

    Attributes:
        own: The slot of this worker, for the kernel to write into.
    """

    def __init__(self, page: mmap.mmap, offset: int, number: int) -> None:
        """Use the slots at `offset` of `page`; workers have the numbers 0 and 1 in turn."""
        slots = [
            memoryview(page)[start : start + SLOT_BYTES]
            for start in range(offset, offset + SLOTS * SLOT_BYTES, SLOT_BYTES)
        ]
        self.own = slots[number % SLOTS]
        self._others = slots[(number + 1) % SLOTS]

    def take_lost(self) -> bytes | None:
        """Return a request that nobody answered, which is this worker's from now on."""
        if not _length(self.own):
            length = min(_length(self._others), SLOT_BYTES)
            if not length:
                return None
            # From the end, so that a kill in the middle leaves no half of a request as a whole.
            self.own[_LENGTH.size : length] = self._others[_LENGTH.size : length]
            self.own[: _LENGTH.size] = self._others[: _LENGTH.size]
            _LENGTH.pack_into(self._others, 0, 0)
        return bytes(self.own[: min(_length(self.own), SLOT_BYTES)])

    def clear(self) -> None:
        """Note that nothing is in work."""
        _LENGTH.pack_into(self.own, 0, 0)

    def close(self) -> None:
        """Let go of the page."""
        self.own.release()
        self._others.release()


def _length(slot: memoryview) -> int:
    (length,) = _LENGTH.unpack_from(slot)
    return int(length)

"""Node ids and handles: one number space for the live view and every generation.

A node id is ``generation << 24 | local``; live nodes have generation 0, the local part stands in
the index of the snapshot. Ids mean the same to every worker of a volume, so they outlive any of
them.
"""

from typing import Final, Self

import attrs

ROOT_NODE: Final = 1  # FUSE_ROOT_ID
GENERATION_SHIFT: Final = 24
LOCAL_MASK: Final = (1 << GENERATION_SHIFT) - 1
LINK_LOCAL: Final = LOCAL_MASK  # the ``..data`` link of a generation
PRIME_NODE: Final = LOCAL_MASK - 1  # an empty file that exists only while the mount is primed
PRIME_NAME: Final = b"..prime"


def split(node: int) -> tuple[int, int]:
    """Return generation (0: live) and local id of a node."""
    return node >> GENERATION_SHIFT, node & LOCAL_MASK


def joined(generation: int, local: int) -> int:
    """Return the node id of `local` in `generation`."""
    return generation << GENERATION_SHIFT | local


_WRITING: Final = 1 << 61
_LIVE: Final = 1 << 62


@attrs.frozen(kw_only=True)
class Handle:
    """An open file or directory: which node of which generation. It has no other state.

    Attributes:
        generation: The generation it was opened on, which answers every read.
        live: A directory opened in the live view, whose entries are live nodes.
        writing: Opened by the touch child to raise an event; what it writes is thrown away.
    """

    generation: int
    local: int
    live: bool = False
    writing: bool = False

    def pack(self) -> int:
        """Return the number that the kernel gets to keep."""
        flags = (_LIVE if self.live else 0) | (_WRITING if self.writing else 0)
        return flags | joined(self.generation, self.local)

    @classmethod
    def unpack(cls, number: int) -> Self:
        """Return the handle that `pack` turned into `number`."""
        generation, local = split(number & ~(_LIVE | _WRITING))
        return cls(
            generation=generation,
            local=local,
            live=bool(number & _LIVE),
            writing=bool(number & _WRITING),
        )

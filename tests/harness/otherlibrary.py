"""A keeper whose workers negotiate other FUSE options, as those of another library version would.

Run as `python -m harness.otherlibrary`, with the options of `python -m fusefs`.
"""

from __future__ import annotations

from fusefs import initmsg
from fusefs.__main__ import main

relayed = initmsg.relayed


def relayed_otherwise(reply: bytes, offered: int, *, user_namespace: bool) -> bytes:
    """Return the reply to INIT as if links were not to be cached."""
    without = offered & ~initmsg.FUSE_CACHE_SYMLINKS
    return relayed(reply, without, user_namespace=user_namespace)


if __name__ == "__main__":
    initmsg.relayed = relayed_otherwise
    main()

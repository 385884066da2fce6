"""A keeper that finds its kernel too old to send requests again.

Run as `python -m harness.oldkernel SOCKET KUBELET_ROOT TAKEOVER`.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, cast

from fusefs import initmsg, keeper
from fusefs.config import Config

if TYPE_CHECKING:
    from fusefs.config import Takeover

offered_flags = initmsg.offered_flags


def offered_by_an_old_kernel(request: bytes) -> int:
    """Return what the kernel offers, without RESEND."""
    return offered_flags(request) & ~initmsg.FUSE_HAS_RESEND


def main() -> None:
    """Be that keeper."""
    logging.basicConfig(level="INFO")
    initmsg.offered_flags = offered_by_an_old_kernel
    socket, root, takeover = sys.argv[1:]
    config = Config(
        socket=socket,
        kubelet_root=root,
        takeover=cast("Takeover", takeover),
        required_flags=initmsg.FUSE_HAS_RESEND if takeover == "resend" else 0,
    )
    keeper.run(config)


if __name__ == "__main__":
    main()

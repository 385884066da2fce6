"""A keeper that asks the kernel for an option that none offers, as if the kernel were too old.

Run as `python -m harness.demanding SOCKET KUBELET_ROOT`.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

from fusefs import keeper
from fusefs.config import Config

UNKNOWN_FLAG: Final = 1 << 63


def main() -> None:
    """Be that keeper."""
    logging.basicConfig(level="INFO")
    socket, root = sys.argv[1:]
    config = Config(socket=socket, kubelet_root=root, required_flags=UNKNOWN_FLAG)
    keeper.run(config)


if __name__ == "__main__":
    main()

"""A keeper whose workers can be made to hang, as a defect would.

Run as `python -m harness.misbehaving SOCKET KUBELET_ROOT`. SIGUSR1 makes a worker spin for ever.
SIGUSR2 makes it write, once a request waits, the notification that blocks in the kernel until the
request is answered, which nobody but another reader of the device can do.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

from typing_extensions import override

from fusefs import initmsg, keeper, worker
from fusefs.config import Config
from fusefs.nodeids import ROOT_NODE

if TYPE_CHECKING:
    from fusefs.gate import Gate
    from fusefs.session import Started


class MisbehavingWorker(worker.Worker):
    """A worker that obeys two more signals."""

    @override
    async def serve(self, gate: Gate, started: Started, *, recover: bool) -> int:
        signal.signal(signal.SIGUSR1, lambda *_: spin())
        signal.signal(signal.SIGUSR2, lambda *_: block(gate.device))
        return await super().serve(gate, started, recover=recover)


def spin() -> None:
    """Keep the interpreter busy for ever."""
    while True:
        pass


def block(device: int) -> None:
    """Wait for a look-up in the root, which locks it, and then for that lock."""
    select.select([device], [], [])
    os.write(device, initmsg.invalidate_entry(ROOT_NODE, b"nothing"))


def main() -> None:
    """Be that keeper."""
    logging.basicConfig(level="INFO")
    socket, root = sys.argv[1:]
    worker.Worker = MisbehavingWorker  # type: ignore[misc]
    keeper.run(Config(socket=socket, kubelet_root=root))


if __name__ == "__main__":
    main()

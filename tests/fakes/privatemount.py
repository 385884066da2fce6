"""A volume's connection on a plain directory, and a worker that says what a test tells it.

The directory stands for the private mount: what touch children do there are ordinary operations, so
the host's part of a volume's life runs without a kernel's FUSE, a mount or root.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fusefs import initmsg, protocol
from fusefs.nodeids import PRIME_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fusefs.loop import Loop
    from fusefs.target import Target
    from fusefs.worker import Assignment


class FakeConnection:
    """Stands for `fusefs.connection.Connection`.

    Attributes:
        done: What was asked of it, in order.
        failing: Names of what fails, with the error.
        shown: Whether the target shows the volume.
        dead: Whether somebody aborted it.
    """

    def __init__(self, private: str) -> None:
        self.private = Path(private)
        self.private.mkdir(parents=True)
        (self.private / PRIME_NAME.decode()).touch()
        (self.private / "..data").symlink_to("..1")
        self.device = os.open("/dev/null", os.O_RDWR)
        self.init_request = initmsg.IN_HEADER.pack(60, initmsg.OPCODE_INIT, *(0,) * 7) + bytes(20)
        self.first_reply: bytes | None = None
        self.done: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.shown = False
        self.dead = False

    @classmethod
    def open(cls, private: str, *, selinux_context: str = "") -> Self:
        """Make a new one; where there is no SELinux, it has no label."""
        assert not selinux_context
        return cls(private)

    def _note(self, what: str) -> None:
        self.done.append(what)
        if what in self.failing:
            raise self.failing[what]

    def require(self, _: int) -> None:
        """Check what the kernel offers."""
        self._note("require")

    def is_dead(self) -> bool:
        """Return whether the connection was aborted."""
        return self.dead

    def is_on(self, _: Target) -> bool:
        """Return whether the target shows the volume."""
        return self.shown

    def open_mount(self) -> int:
        """Return a descriptor of the directory."""
        self._note("open_mount")
        return os.open(self.private, os.O_PATH | os.O_DIRECTORY)

    def attach(self, target: Target) -> None:
        """Make the target show the volume."""
        self._note("attach")
        os.close(target.open())
        self.shown = True

    def set_writable(self, *, writable: bool) -> bool:
        """Let writes through, or not; a busy superblock stays writable."""
        self._note("rw" if writable else "ro")
        return writable or "busy" not in self.failing

    def close(self) -> None:
        """Abort and let go."""
        os.close(self.device)
        self.shown = False
        self._note("close")


class FakeWorkerProcess:
    """Stands for `fusefs.workerprocess.WorkerProcess`.

    Attributes:
        assignment: What it was forked to serve.
        told: Every message that it was told.
        killed: How often it was killed.
        say: Says something to the keeper.
        end: Ends it with an exit code, after so many seconds.
    """

    pid = 4711

    def __init__(
        self,
        loop: Loop,
        prepare: Callable[[socket.socket], Assignment],
        spoke: Callable[[protocol.FromWorker], None],
        ended: Callable[[int, float], None],
    ) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.assignment = prepare(theirs)
        self.loop = loop
        self.say = spoke
        self.end = ended
        self.told: list[protocol.Message] = []
        self.killed = 0

    def tell(self, message: protocol.Message, descriptors: Sequence[int] = ()) -> None:
        """Note a message; its descriptors stay the keeper's."""
        assert len(descriptors) == isinstance(message, protocol.Swap)
        self.told.append(message)

    def kill(self) -> None:
        """Note that it is to end."""
        self.killed += 1

    def abandon(self, gone: Callable[[], None]) -> None:
        """End at once, unheard."""
        self.killed += 1
        gone()

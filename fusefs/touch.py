"""What the children do on a private mount: prime it, and carry out a plan.

Only operations of the VFS raise inotify events, so the operations of a rotation are real ones, made
by a child with CAP_DAC_OVERRIDE alone. All of them may find their work done by a predecessor.
"""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from fusefs import initmsg
from fusefs.loop import Loop
from fusefs.nodeids import PRIME_NAME, ROOT_NODE
from fusefs.plan import DATA_LINK, DATA_LINK_NEXT, Plan, Step

log = logging.getLogger(__name__)

ACKNOWLEDGED: Final = b"acknowledged"
MAX_REPORT_BYTES: Final = 128 << 10
_BUSY: Final = (errno.EAGAIN, errno.ETXTBSY)  # a lease is held; a program runs from the file
_UNWRITTEN: Final = b"\n"  # one byte for the event; the worker throws it away


def prime() -> int:
    """Let the kernel learn what the worker does not answer, in the mount of the working directory.

    FLUSH, SEEK_DATA and the extended attribute calls are asked once here, so that no reader of a
    pod is ever the first to ask while no worker answers.
    """
    fd = os.open(PRIME_NAME, os.O_RDONLY)
    try:
        os.read(fd, 1)
        with contextlib.suppress(OSError):
            os.lseek(fd, 0, os.SEEK_DATA)
        with contextlib.suppress(OSError):
            os.getxattr(fd, "user.akv.generation")
        os.listxattr(fd)
    finally:
        os.close(fd)
    return 0


def carry_out(plan: Plan, report: socket.socket) -> None:
    """Make every name follow the plan, swing ``..data``, and report the acknowledgement."""
    for step in plan.steps:
        _take(step)
    with contextlib.suppress(FileExistsError):
        os.symlink(f"..{plan.generation}", DATA_LINK_NEXT)
    # Absent when a predecessor got as far as the rename.
    with contextlib.suppress(FileNotFoundError):
        os.rename(DATA_LINK_NEXT, DATA_LINK)
    report.send(ACKNOWLEDGED)


def _take(step: Step) -> None:
    # A child that starts anew finds steps done, and where a name changed its kind, others as well.
    match step.kind:
        case "mkdir":
            with contextlib.suppress(FileExistsError):
                os.mkdir(step.path, 0o755)
        case "create":
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            with contextlib.suppress(FileExistsError):
                os.close(os.open(step.path, flags, 0o444))
        case "unlink":
            with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
                os.unlink(step.path)
        case "rmdir":
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.rmdir(step.path)


def forget_generations(device: int, generations: Sequence[int]) -> None:
    """Make the kernel forget the names of generations that ``..data`` no longer shows.

    What is still used there stays usable; what is not is forgotten, so that the generation can go.
    """
    for generation in generations:
        with contextlib.suppress(FileNotFoundError):
            os.write(device, initmsg.invalidate_entry(ROOT_NODE, b"..%d" % generation))


def notify(paths: Sequence[str], report: socket.socket) -> None:
    """Raise MODIFY and CLOSE_WRITE on each file, and report those that are busy.

    A file is busy while a pod runs it, or holds a lease on it: a blocking open would wait 45 s.
    """
    busy = [path for path in paths if not _write_one_byte(path)]
    encoded = msgspec.msgpack.encode(busy)
    # Too many to tell are given up: the report must fit one packet.
    report.send(encoded if len(encoded) <= MAX_REPORT_BYTES else msgspec.msgpack.encode([]))


def _write_one_byte(path: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno != errno.ENOENT:  # that one was removed again by a later rotation
            log.warning("no event for a changed file: %s", error.strerror)
        return True
    try:
        os.write(fd, _UNWRITTEN)
    finally:
        os.close(fd)
    return True


class Report:
    """What a touch child says, read by the keeper.

    Attributes:
        busy: Files that are owed an event; None when the child did not get so far.
    """

    def __init__(self, loop: Loop, acknowledged: Callable[[], None]) -> None:
        """Call `acknowledged` when every name follows the plan."""
        self._loop = loop
        self._acknowledged = acknowledged
        self.busy: tuple[str, ...] | None = None
        ours, self.child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection: socket.socket | None = ours
        loop.watch(ours.fileno(), self._read)

    def close_child_end(self) -> None:
        """Close the child's end, once the child is forked."""
        self.child_end.close()

    def finish(self) -> None:
        """Read what the child, which has ended, had still said."""
        while self._connection is not None:
            self._read()

    def _read(self) -> None:
        assert self._connection is not None  # noqa: S101 - watched only while it is open
        packet = self._connection.recv(MAX_REPORT_BYTES)
        if packet == ACKNOWLEDGED:
            self._acknowledged()
        elif packet:
            self.busy = tuple(msgspec.msgpack.decode(packet, type=list[str]))
        else:
            self._loop.unwatch(self._connection.fileno())
            self._connection.close()
            self._connection = None

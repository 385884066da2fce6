"""Tries, as a worker would, what a worker must not be able to do; prints what came of it as JSON.

Run as `python -m harness.sandboxed NEIGHBOUR_PID KEEPER_SOCKET OTHER_FILE`. The child goes through
the very function that a worker goes through, so it has a worker's identity, root and limits. The
exit code also tells whether a child that touches mounts can be led out of one by a link.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

from fusefs import children, sandbox, worker
from fusefs.errnos import handler
from fusefs.snapshot import FileSpec, seal
from fusefs.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

UID = 2_000_000_500


def attempt(action: Callable[[], object]) -> str:
    """Return the name of the error that `action` raises, or "allowed"."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return "allowed"


def open_parents() -> None:
    """Look for a way out through every descriptor: ``..`` of each must not open."""
    for name in range(1024):
        try:
            os.close(os.open("..", os.O_RDONLY, dir_fd=name))
        except OSError:
            continue
        raise AssertionError(name)


def probes(neighbour: int, keeper_socket: str, other_file: str) -> dict[str, str]:
    """Try everything and return what came of each."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return {
        "open core_pattern": attempt(lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)),
        "open another volume": attempt(lambda: os.open(other_file, os.O_RDONLY)),
        "open /etc/passwd": attempt(lambda: os.open("/etc/passwd", os.O_RDONLY)),
        "make a file": attempt(lambda: os.open("/x", os.O_CREAT | os.O_WRONLY)),
        "signal a neighbour": attempt(lambda: os.kill(neighbour, signal.SIGKILL)),
        "signal the keeper": attempt(lambda: os.kill(os.getppid(), signal.SIGKILL)),
        "reach the keeper's socket": attempt(lambda: connection.connect(keeper_socket)),
        "become root": attempt(lambda: os.setuid(0)),
        "change root": attempt(lambda: os.chroot(".")),
        "fork": attempt(os.fork),
        "list network interfaces": str([name for _, name in socket.if_nameindex()]),
        "list the root": str(os.listdir("/")),
        "leave by ..": str(os.stat("/..").st_ino == os.stat("/").st_ino),
    }


def status() -> dict[str, str]:
    """Return what the kernel says of this process; it has no /proc of its own to ask."""
    return {
        "uid": str(os.getresuid()),
        "gid": str(os.getresgid()),
        "groups": str(os.getgroups()),
        "core limit": str(resource.getrlimit(resource.RLIMIT_CORE)),
    }


async def failing_handler() -> None:
    """Fail as a defect would."""
    message = "a defect after the chroot"
    raise KeyError(message)


def as_worker(assignment: worker.Assignment, result: int, arguments: list[str]) -> int:
    """Enter the sandbox, try everything, log a failure, report."""
    worker.enter(assignment)
    neighbour, keeper_socket, other_file = arguments
    found = {**probes(int(neighbour), keeper_socket, other_file), **status()}
    try:
        handler(failing_handler)().send(None)
    except BaseException as error:  # noqa: ASYNC103, BLE001 - what a handler raises is the result
        found["failing handler"] = str(error)
    found["descriptors"] = "none leads out" if attempt(open_parents) == "allowed" else "way out"
    os.write(result, json.dumps(found).encode())
    return 0


def touch_through_a_link() -> int:
    """Open, as a touch child would, a file below a link that leads out; exit 0 when it is lost."""
    with tempfile.TemporaryDirectory() as shown:
        os.symlink("/etc", f"{shown}/link")
        directory = os.open(shown, os.O_PATH)
        identity = sandbox.Identity(uid=UID, capabilities=(sandbox.CAP_DAC_OVERRIDE,))
        keeper = os.getpid()

        def child() -> int:
            children.enter([], identity, keeper=keeper, directory=directory)
            outcome = attempt(lambda: os.open("link/passwd", os.O_WRONLY))
            return 0 if outcome == "ENOENT" else 1

        pid = children.fork(child)
        _, status_code = os.waitpid(pid, 0)
        os.close(directory)
    return os.waitstatus_to_exitcode(status_code)


def main() -> None:
    """Fork a worker's sandbox and print its findings."""
    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s: %(message)s")
    worker.warm_up()
    sealed = seal([FileSpec(path="a", content=b"x")], previous=None, now_ns=0)
    _, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    root = sandbox.empty_root()
    # The report's pipe takes the place of the FUSE device, which this child has no use for.
    assignment = worker.Assignment(
        device=writing,
        control=theirs,
        usage=Usage.create(),
        root=root,
        init_request=b"",
        first_reply=None,
        snapshots=((1, sealed.snapshot.fd),),
        pending=None,
        plan=None,
        primed=True,
        uid=UID,
        keeper=os.getpid(),
        digests={1: sealed.snapshot.digest},
    )
    pid = children.fork(lambda: as_worker(assignment, writing, sys.argv[1:]))
    os.close(writing)
    with open(reading, "rb") as report:
        found = report.read()
    _, status_code = os.waitpid(pid, 0)
    sys.stdout.buffer.write(found)
    sys.exit(os.waitstatus_to_exitcode(status_code) or touch_through_a_link())


if __name__ == "__main__":
    main()

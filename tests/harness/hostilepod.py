"""A pod that does what no sane program does with its volume, until it is killed.

Run as `python hostilepod.py KIND TARGET`; prints a line once it is in full swing. It imports
nothing of the project.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import mmap
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPENS = 10_000
PTRACE_TRACEME = 0
HUGE = (2**62, 2**63 - 4096, 2**63 - 1)


def many_opens(target: str) -> Iterator[None]:
    """Hold as many files and directories open as the system allows, of every view."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 2 * OPENS), most))
    paths = itertools.cycle((f"{target}/user", f"{target}/..data/pass", target, f"{target}/..data"))
    for _ in range(OPENS):
        os.open(next(paths), os.O_RDONLY)
    while True:
        yield
        os.close(os.open(next(paths), os.O_RDONLY))


def endless_listing(target: str) -> Iterator[None]:
    """List directories over and over, from wrong places too."""
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    while True:
        yield
        os.listdir(target)
        os.listdir(f"{target}/..data")
        for offset in (0, 3, 10**9, *HUGE):
            with contextlib.suppress(OSError):
                os.lseek(descriptor, offset, os.SEEK_SET)
            with contextlib.suppress(OSError):
                os.listdir(descriptor)


def leases(target: str) -> Iterator[None]:
    """Hold a read lease on each file, and never give it back."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    for name in ("user", "pass"):
        descriptor = os.open(f"{target}/{name}", os.O_RDONLY)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    while True:
        yield
        signal.pause()


def huge_offsets(target: str) -> Iterator[None]:
    """Read, seek and map where nothing is."""
    descriptors = [os.open(f"{target}/{name}", os.O_RDONLY) for name in ("user", "..data/user")]
    while True:
        yield
        for descriptor, offset in itertools.product(descriptors, HUGE):
            for action in (
                lambda: os.pread(descriptor, 1 << 20, offset),  # noqa: B023 - called at once
                lambda: os.preadv(descriptor, [bytearray(1 << 16)] * 16, offset),  # noqa: B023
                lambda: os.lseek(descriptor, offset, os.SEEK_DATA),  # noqa: B023
                lambda: mmap.mmap(descriptor, 1 << 30, mmap.MAP_PRIVATE, mmap.PROT_READ),  # noqa: B023
            ):
                with contextlib.suppress(OSError, OverflowError, ValueError):
                    action()


def odd_calls(target: str) -> Iterator[None]:
    """Try every call that a file of secrets has no use for."""
    descriptor = os.open(f"{target}/user", os.O_RDONLY)
    other = os.open("/dev/null", os.O_RDWR)
    ours, theirs = socket.socketpair()
    calls: list[Callable[[], object]] = [
        lambda: os.close(os.open(f"{target}/user", os.O_RDONLY | os.O_DIRECT)),
        lambda: os.close(os.open(f"{target}/user", os.O_WRONLY | os.O_TRUNC)),
        lambda: os.close(os.open(f"{target}/x", os.O_CREAT | os.O_WRONLY)),
        lambda: os.open(f"{target}", os.O_TMPFILE | os.O_WRONLY),
        lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB),
        lambda: fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB),
        lambda: fcntl.ioctl(descriptor, 0x5401, bytes(64)),
        lambda: fcntl.ioctl(descriptor, 0xC0405800 | 0x3F00, bytearray(1000)),
        lambda: os.posix_fallocate(descriptor, 0, 100),
        lambda: os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED),
        lambda: os.sendfile(ours.fileno(), descriptor, 0, 1 << 16),
        lambda: theirs.recv(1 << 20, socket.MSG_DONTWAIT),
        lambda: os.copy_file_range(descriptor, other, 100),
        lambda: os.fsync(descriptor),
        lambda: os.setxattr(f"{target}/user", "user.akv.version", b"x"),
        lambda: os.removexattr(f"{target}/user", "user.akv.version"),
        lambda: os.getxattr(f"{target}/user", "system.posix_acl_access"),
        lambda: os.link(f"{target}/user", f"{target}/y"),
        lambda: os.rename(f"{target}/user", f"{target}/pass"),
        lambda: os.mknod(f"{target}/z"),
        lambda: os.truncate(f"{target}/user", 1 << 40),
        lambda: os.utime(f"{target}/user"),
        lambda: os.chown(f"{target}/user", 1, 1),
        lambda: os.statvfs(target),
        lambda: os.stat(f"{target}/{'n' * 255}"),
        lambda: os.stat(f"{target}/{'n' * 4000}"),
        lambda: os.stat(f"{target}/" + "user/" * 500),
        lambda: os.stat(os.fsencode(target) + b"/\xff\xfe\n"),
        lambda: os.stat(f"{target}/..99999999999999999999"),
        lambda: os.stat(f"{target}/..prime"),
    ]
    while True:
        yield
        for call in calls:
            with contextlib.suppress(OSError):
                call()


def traced_readers(target: str) -> Iterator[None]:
    """Start readers that stop themselves in the middle, as if under a debugger for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(20):
        if os.fork() == 0:
            libc.ptrace(PTRACE_TRACEME, 0, None, None)
            descriptor = os.open(f"{target}/user", os.O_RDONLY)
            os.read(descriptor, 1)
            os.kill(os.getpid(), signal.SIGTRAP)
            os._exit(0)
    while True:
        yield
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WUNTRACED)


def flood(target: str) -> Iterator[None]:
    """Ask as fast as possible, for files and for names that there are not."""
    for number in itertools.count():
        yield
        with open(f"{target}/user", "rb", buffering=0) as file:
            file.read()
        with contextlib.suppress(FileNotFoundError):
            os.stat(f"{target}/{number}")


KINDS: dict[str, Callable[[str], Iterator[None]]] = {
    "opens": many_opens,
    "listing": endless_listing,
    "leases": leases,
    "offsets": huge_offsets,
    "calls": odd_calls,
    "ptrace": traced_readers,
    "flood": flood,
}


def main() -> None:
    """Do one of these for ever."""
    kind, target = sys.argv[1:]
    attack = KINDS[kind](target)
    for _ in range(3):
        next(attack)
        if kind == "leases":
            break
    print("in full swing", flush=True)
    for _ in attack:
        pass


if __name__ == "__main__":
    main()

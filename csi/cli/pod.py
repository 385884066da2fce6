"""`python -m csi.cli.pod TARGET FILE MOUNTPOINT`: the container of the demo's pod.

Like a container it has mounts of its own, in which MOUNTPOINT shows FILE of the volume, as a
`subPath` mount does. The folder is open and watched from the start. Orders come on standard input,
answers go to standard output; the end of the orders is the end of the pod.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from csi.cli import inotify, mounts
from csi.cli.podorders import (
    AnyOrder,
    AwaitContent,
    AwaitEvents,
    CountReads,
    Finish,
    Happened,
    Hold,
    Part,
    Reads,
    Seen,
    StartReaders,
    StopReaders,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PATH: Final = "a path"
DIRECTORY: Final = "the open folder"
BIND: Final = "the bound file"
DATA: Final = "..data"
FILE: Final = "the file"

_VERSION: Final = "user.akv.version"
_MAX_BYTES: Final = 1 << 20


class Readers:
    """Threads that open, read and close, and count."""

    def __init__(self, routes: list[Callable[[], int]], value: str, threads: int) -> None:
        """Start them."""
        self._value = value.encode()
        self._stop = threading.Event()
        self._counts = [_Count() for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._read, args=(count, routes[number % len(routes)]))
            for number, count in enumerate(self._counts)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish the read it is in."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def report(self) -> Reads:
        """Return how they did until now."""
        return Reads(
            begun=sum(count.begun for count in self._counts),
            completed=sum(count.completed for count in self._counts),
            failures=[failure for count in self._counts for failure in count.failures],
            longest_gap=max(count.longest_gap for count in self._counts),
        )

    def _read(self, count: _Count, route: Callable[[], int]) -> None:
        last = time.monotonic()
        while not self._stop.is_set():
            count.begun += 1
            try:
                content = _read_all(route())
            except OSError as error:
                count.failures.append(os.strerror(error.errno or 0))
                continue
            if content != self._value:
                count.failures.append("other content")
            count.completed += 1
            now = time.monotonic()
            count.longest_gap = max(count.longest_gap, now - last)
            last = now


class _Count:
    def __init__(self) -> None:
        self.begun = self.completed = 0
        self.longest_gap = 0.0
        self.failures: list[str] = []


class Pod:
    """A container with the volume, and what it has open."""

    def __init__(self, target: Path, file: str, mount_point: Path) -> None:
        """Open and watch what is to be looked at."""
        self._file = target / file
        directory = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        self._routes: dict[str, Callable[[], int]] = {
            PATH: lambda: os.open(self._file, os.O_RDONLY),
            DIRECTORY: lambda: os.open(file, os.O_RDONLY, dir_fd=directory),
            BIND: lambda: os.open(mount_point, os.O_RDONLY),
            DATA: lambda: os.open(target / "..data" / file, os.O_RDONLY),
        }
        self._watchers = {
            FILE: inotify.Watcher(self._file),
            BIND: inotify.Watcher(mount_point),
            DIRECTORY: inotify.Watcher(target),
        }
        self._held = -1
        self._readers: Readers | None = None

    def carry_out(self, order: AnyOrder) -> msgspec.Struct:
        """Do what is asked for."""
        match order:
            case Hold():
                return self._hold()
            case Finish():
                return Part(_read_all(self._held).decode())
            case AwaitContent():
                return self._await_content(order)
            case AwaitEvents():
                return self._await_events(order.seconds)
            case StartReaders():
                routes = list(self._routes.values())
                self._readers = Readers(routes, order.value, order.threads)
                return self._readers.report()
            case CountReads() | StopReaders():
                return self._report(stop=isinstance(order, StopReaders))

    def _hold(self) -> Part:
        self._held = self._routes[PATH]()
        half = os.fstat(self._held).st_size // 2
        return Part(os.read(self._held, half).decode())

    def _await_content(self, order: AwaitContent) -> Seen:
        deadline = time.monotonic() + order.seconds
        at: dict[str, float | None] = dict.fromkeys(self._routes)
        wanted = order.value.encode()
        while None in at.values() and time.monotonic() < deadline:
            for name, route in self._routes.items():
                if at[name] is None and _read_all(route()) == wanted:
                    at[name] = time.monotonic()
        version = os.getxattr(self._file, _VERSION).decode()
        return Seen(at=at, version=version)

    def _await_events(self, seconds: float) -> Happened:
        deadline = time.monotonic() + seconds
        events: dict[str, dict[str, None]] = {label: {} for label in self._watchers}
        while not all(events.values()) and (left := deadline - time.monotonic()) > 0:
            inotify.wait(self._watchers.values(), left)
            for label, watcher in self._watchers.items():
                events[label].update(dict.fromkeys(watcher.events()))
        return Happened({label: list(seen) for label, seen in events.items()})

    def _report(self, *, stop: bool) -> Reads:
        if self._readers is None:
            return Reads(begun=0, completed=0, failures=[], longest_gap=0.0)
        if stop:
            self._readers.stop()
        return self._readers.report()


def _read_all(descriptor: int) -> bytes:
    """Read to the end and close, as `cat` does: sizes are not trusted."""
    try:
        content = b""
        while chunk := os.read(descriptor, _MAX_BYTES):
            content += chunk
        return content
    finally:
        os.close(descriptor)


def main() -> None:
    """Be the container until the orders end."""
    target, file, mount_point = sys.argv[1:]
    mounts.enter_namespace()
    mounts.bind_file(Path(target) / file, Path(mount_point))
    pod = Pod(Path(target), file, Path(mount_point))
    for line in sys.stdin.buffer:
        answer = pod.carry_out(msgspec.json.decode(line, type=AnyOrder))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

"""A reader process: opens, reads and closes until told to stop, and judges every read.

Run as `python reader.py KIND PATH SHARED REPORT`; see `harness.load`. It imports nothing of the
project, so that its reads are what a pod's would be.
"""

from __future__ import annotations

import array
import json
import mmap
import os
import struct
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORD = 14  # b"user-00000001;"
ACKNOWLEDGED_AT, STOP_AT = 0, 8  # layout of the shared page


class Judge:
    """Counts reads, and what was wrong with them."""

    def __init__(self, shared: mmap.mmap) -> None:
        self.shared = shared
        self.errors: dict[str, int] = {}
        self.torn = self.stale = self.size_wrong = 0
        self.begun = array.array("d")
        self.ended = array.array("d")
        self.examples: list[str] = []

    def acknowledged(self) -> int:
        """Return the generation that was acknowledged before now."""
        return int(struct.unpack_from("=Q", self.shared, ACKNOWLEDGED_AT)[0])

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Record when a read of one file began and when it was over, failed or not."""
        self.begun.append(time.monotonic())
        try:
            yield
        finally:
            self.ended.append(time.monotonic())

    def judge(self, data: bytes, at_least: int) -> int:
        """Check one whole read; return the generation it shows."""
        try:
            generation = int(data[5:13])
        except ValueError:
            generation = -1
        expected = data[:5] + b"%08d;" % generation
        if data != expected * (1 + generation * 7919 % 900):
            self.torn += 1
            self.examples.append(f"torn: {len(data)} bytes, starts {data[:RECORD]!r}")
        elif generation < at_least:
            self.stale += 1
            self.examples.append(f"stale: {generation} after {at_least}")
        return generation


def read_live(judge: Judge, path: str) -> None:
    """Open, read to the end in small pieces, close."""
    at_least = judge.acknowledged()
    with judge.timed():
        fd = os.open(path, os.O_RDONLY)
        try:
            parts = []
            while part := os.read(fd, 4096):
                parts.append(part)
        finally:
            os.close(fd)
    judge.judge(b"".join(parts), at_least)


def read_pair(judge: Judge, path: str) -> None:
    """Read two files through one directory descriptor on `..data`, each exactly its size."""
    at_least = judge.acknowledged()
    directory = os.open(f"{path}/..data", os.O_RDONLY | os.O_DIRECTORY)
    try:
        both = [read_exactly(judge, directory, name) for name in ("user", "pass")]
    finally:
        os.close(directory)
    seen = {judge.judge(data, at_least) for data in both}
    if len(seen) != 1:
        judge.torn += 1
        judge.examples.append(f"mixed: {sorted(seen)}")


def read_exactly(judge: Judge, directory: int, name: str) -> bytes:
    """Read as many bytes as fstat promises; more or fewer is counted."""
    with judge.timed():
        fd = os.open(name, os.O_RDONLY, dir_fd=directory)
        try:
            size = os.fstat(fd).st_size
            data = os.read(fd, size)
            if len(data) != size or os.read(fd, 1):
                judge.size_wrong += 1
            return data
        finally:
            os.close(fd)


def read_listing(judge: Judge, path: str) -> None:
    """List the top level: what is in every set of names is always listed, once, and opens."""
    with judge.timed():
        names = os.listdir(path)
    generations = [name for name in names if name.startswith("..") and name != "..data"]
    if len(set(names)) != len(names) or len(generations) != 1:
        judge.torn += 1
        judge.examples.append(f"listing: {sorted(names)}")
    for name in ("user", "pass", "..data"):
        if name not in names:
            judge.torn += 1
            judge.examples.append(f"{name} is missing in {sorted(names)}")
        os.stat(f"{path}/{name}")


KINDS: dict[str, Callable[[Judge, str], None]] = {
    "live": read_live,
    "pair": read_pair,
    "list": read_listing,
}


def main() -> None:
    """Read until the shared page says stop, then write the report."""
    kind, path, shared_path, report_path = sys.argv[1:]
    with open(shared_path, "rb") as file:
        shared = mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
    judge = Judge(shared)
    read = KINDS[kind]
    while not shared[STOP_AT]:
        try:
            read(judge, path)
        except OSError as error:
            name = f"{type(error).__name__} {error.errno}"
            judge.errors[name] = judge.errors.get(name, 0) + 1
    report = {
        "begun": judge.begun.tolist(),
        "ended": judge.ended.tolist(),
        "errors": judge.errors,
        "torn": judge.torn,
        "stale": judge.stale,
        "size_wrong": judge.size_wrong,
        "examples": judge.examples[:5],
    }
    with open(report_path, "w", encoding="utf-8") as file:
        json.dump(report, file)


if __name__ == "__main__":
    main()

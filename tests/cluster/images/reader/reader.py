"""Opens, reads and closes files for ever, and tells ten times a second how that went.

Run as `python3 reader.py PATH…`. Each line is: time, attempts, errors, longest time between two
reads that succeeded, and the last error; times are in ms, since the machine was booted. The four
readers speak alike (see `cluster.readers`).
"""

from __future__ import annotations

import os
import sys
import time

WINDOW_MS = 100
PAUSE_S = 0.001  # so that readers leave the cores to what they are there to watch


def now_ms() -> int:
    """Return the time that every program of the machine agrees on."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def read_once(path: str) -> str:
    """Return what is wrong with the file, or nothing."""
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            size = 0
            while part := os.read(fd, 4096):
                size += len(part)
        finally:
            os.close(fd)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if size else f"{path}: empty"


def main() -> None:
    """Read until killed."""
    paths = sys.argv[1:]
    last_good = window = now_ms()
    attempts = errors = longest = 0
    message = "-"
    while True:
        for path in paths:
            problem = read_once(path)
            attempts += 1
            now = now_ms()
            if problem:
                errors += 1
                message = problem
            else:
                longest = max(longest, now - last_good)
                last_good = now
            if now - window >= WINDOW_MS:
                print(now, attempts, errors, longest, message, flush=True)
                window = now
                attempts = errors = longest = 0
                message = "-"
            time.sleep(PAUSE_S)  # noqa: TID251 - it paces itself and waits for nothing


if __name__ == "__main__":
    main()

"""A pod's reads: opens, reads and closes each of the given files until standard input ends.

Run as `python secretreader.py PATH…`. It imports nothing of the project. At the end it prints what
it has counted as JSON.
"""

from __future__ import annotations

import json
import select
import sys
import time


def main() -> None:
    """Read, and count."""
    begun, failures, longest_gap, last = 0, [], 0.0, time.monotonic()
    while not select.select([sys.stdin], [], [], 0)[0]:
        for path in sys.argv[1:]:
            begun += 1
            try:
                with open(path, "rb") as file:
                    if not file.read():
                        failures.append(f"{path}: empty")
            except OSError as error:
                failures.append(str(error))
        now = time.monotonic()
        longest_gap, last = max(longest_gap, now - last), now
    json.dump({"begun": begun, "failures": failures, "longest_gap": longest_gap}, sys.stdout)


if __name__ == "__main__":
    main()

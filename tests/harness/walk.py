"""Look at everything below the working directory as a pod would, and print what was seen.

Run as a program of its own, also by its text, so that any user may: it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import sys


def walk() -> dict[str, str]:
    """Return content, link target or listing of each path, after looking at it in every way."""
    found = {}
    for directory, directories, files in os.walk(".", onerror=_fail):
        found[directory] = " ".join(sorted(os.listdir(directory)))
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            os.stat(path)
            if os.path.islink(path):
                found[path] = os.readlink(path)
        for name in files:
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                found[path] = file.read().hex()
                assert os.fstat(file.fileno()).st_size == len(found[path]) // 2, path
    return found


def _fail(error: OSError) -> None:
    raise error


if __name__ == "__main__":
    json.dump(walk(), sys.stdout)

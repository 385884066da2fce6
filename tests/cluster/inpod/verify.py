"""The first program of a container: are the files of its volume exactly what they should be?

Run as `verify.py FOLDER EXPECTED`, with EXPECTED a JSON object of SHA-256 sums by path. It prints
one line, `exact` or what is wrong, and stays, so that a container that started twice shows two.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from pathlib import Path


def differences(folder: Path, expected: dict[str, str]) -> list[str]:
    """Return which files are missing, are of other bytes, or are too many."""
    found = {
        str(path.relative_to(folder)): path
        for path in folder.rglob("*")
        if path.is_file() and not str(path.relative_to(folder)).startswith("..")
    }
    wrong = [f"{name} is too many" for name in sorted(set(found) - set(expected))]
    for name, wanted in sorted(expected.items()):
        if name not in found:
            wrong.append(f"{name} is missing")
            continue
        content = found[name].read_bytes()
        if hashlib.sha256(content).hexdigest() != wanted:
            wrong.append(f"{name} has {len(content)} other bytes")
    return wrong


if __name__ == "__main__":
    print(", ".join(differences(Path(sys.argv[1]), json.loads(sys.argv[2]))) or "exact", flush=True)
    signal.pause()

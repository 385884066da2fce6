"""A process that the kernel does not dump."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, importlib, json, resource, sys
importlib.import_module(sys.argv[1]).forbid()
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
print(json.dumps([*resource.getrlimit(resource.RLIMIT_CORE), dumpable]))
"""


@pytest.mark.parametrize("module", ["csi.coredump", "provider.coredump"])
def test_process_is_not_dumpable(module: str) -> None:
    """No core file, whatever the limit was, and no dump for a collector behind a pipe."""
    command = [sys.executable, "-c", PROGRAM, module]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout) == [0, 0, 0]

"""The search for canaries would notice: what happens where a precaution is missing."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from harness.canaries import Canary, Searcher
from harness.secrecy import staged
from harness.wholenode import core_files_allowed

if TYPE_CHECKING:
    from harness.canaries import Finding

CORE_PATTERN: Final = Path("/proc/sys/kernel/core_pattern")
HOLDER: Final = """
import sys
secret = sys.stdin.readline()
print("read", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_missing_redaction_is_noticed(
    tmp_path_factory: pytest.TempPathFactory,
    as_json: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A node server that logs requests as they are is caught, with each secret of the pod."""
    directory = tmp_path_factory.mktemp("akvfs")
    with staged(directory, as_json=as_json, node_module="harness.talkative") as stage:
        volume = stage.volume()
        stage.publish(volume)
        stage.node.unpublish(volume)
        with pytest.raises(AssertionError, match=r"file .*node server\.log"):
            stage.check()
    assert {each.canary for each in logged(stage.found)} >= {
        "client secret",
        "service account token",
    }


def logged(found: list[Finding]) -> list[Finding]:
    """Return what was found in logs."""
    return [each for each in found if each.where.endswith(".log")]


def test_unguarded_crash_is_noticed(tmp_path: Path) -> None:
    """A program that does not forbid core files leaves its secret in one, where the node lets it.

    Where the node sends them elsewhere, or forbids them, there is none to be found.
    """
    canary = Canary.of("secret")
    with core_files_allowed():
        allowed = resource.getrlimit(resource.RLIMIT_CORE)[0] != 0
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=tmp_path,
        )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(canary.text.encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"read\n"
        process.send_signal(signal.SIGSEGV)
        assert process.wait(timeout=30) == -signal.SIGSEGV
    here = "/" not in CORE_PATTERN.read_text(encoding="ascii")
    found = list(Searcher((canary,)).in_tree(tmp_path))
    assert bool(found) is (allowed and here)

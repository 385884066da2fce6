"""The checks that end a session find what they are there to find."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import leftovers

CONFTEST = Path(__file__).parents[2] / "conftest.py"
SETTINGS = "[pytest]\ntrio_mode = true\nmarkers =\n    unit: x\n    mounted: x\n    trio: x\n"


def run_session(folder: Path, body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a session of its own, under the project's conftest, on one test file."""
    tests = folder / "tests" / "unit"
    tests.mkdir(parents=True)
    (folder / "pytest.ini").write_text(SETTINGS)
    (folder / "tests" / "conftest.py").write_text(CONFTEST.read_text())
    (tests / "test_it.py").write_text(textwrap.dedent(body))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CONFTEST.parent), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_clean_session_passes(tmp_path: Path) -> None:
    """A session that leaves nothing ends with pytest's own verdict."""
    done = run_session(tmp_path, "def test_nothing(): pass")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout.splitlines()[-1]


def test_forgotten_program_fails_session(tmp_path: Path) -> None:
    """A program still running at the end fails the session and is named."""
    done = run_session(
        tmp_path,
        """
        import subprocess

        def test_forgets():
            global child
            child = subprocess.Popen(["sh", "-c", "read forever"], stdin=subprocess.PIPE)
        """,
    )
    assert done.returncode == 1, done.stdout
    assert "read forever" in done.stdout
    assert "1 passed, 1 error" in done.stdout.splitlines()[-1]


def test_forgotten_thread_fails_session(tmp_path: Path) -> None:
    """A thread nobody joined fails the session and is named."""
    done = run_session(
        tmp_path,
        """
        import threading

        def test_forgets():
            threading.Thread(target=threading.Event().wait, name="lost", daemon=True).start()
        """,
    )
    assert done.returncode == 1, done.stdout
    assert "thread: lost" in done.stdout


@pytest.mark.parametrize(
    ("environment", "code"),
    [pytest.param({}, 0, id="by-hand"), pytest.param({"CI": "true"}, 1, id="in-ci")],
)
def test_skipped_test_fails_only_in_ci(
    tmp_path: Path, environment: dict[str, str], code: int
) -> None:
    """A skipped test is an error where nobody would notice it."""
    body = """
        import pytest

        @pytest.mark.skip(reason="example")
        def test_skipped(): pass
        """
    done = run_session(tmp_path, body, **environment)
    assert done.returncode == code, done.stdout


def test_mount_of_ours_is_recognised() -> None:
    """A mountinfo line counts when its type or source is ours, and only then."""
    ours = "45 30 0:41 / /x/mount ro,nosuid - fuse.akvfs akvfs rw,user_id=0"
    foreign = "46 30 0:42 / /tmp rw - tmpfs tmpfs rw"
    assert leftovers.mounts_of_ours(f"{foreign}\n{ours}\n") == [ours]


def test_pooled_thread_is_no_leftover() -> None:
    """An idle thread of trio's pool is not reported."""
    release = threading.Event()
    pooled = threading.Thread(target=release.wait, name="Trio thread 7")
    pooled.start()
    try:
        assert "thread: Trio thread 7" not in leftovers.left_threads()
    finally:
        release.set()
        pooled.join()

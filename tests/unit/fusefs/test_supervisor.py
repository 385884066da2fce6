"""The process that starts the keeper again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.supervisor import EXIT_HANDED_OVER as HANDED_OVER
from fusefs.supervisor import FIRST_BACKOFF_S, MAX_BACKOFF_S, backoff, command_of_keeper, rank

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPERVISOR = """
import sys
from fusefs.supervisor import supervise
sys.exit(supervise(sys.argv[1:]))
"""
KEEPER = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print(os.getpid(), flush=True)
signal.pause()
"""


def test_first_restart_comes_at_once() -> None:
    """A keeper that died for once is missed already."""
    assert [backoff(deaths) for deaths in range(5)] == [
        0,
        0,
        FIRST_BACKOFF_S,
        2 * FIRST_BACKOFF_S,
        4 * FIRST_BACKOFF_S,
    ]


@given(deaths=st.integers(0, 10**9))
def test_waits_grow_up_to_a_limit(deaths: int) -> None:
    """However long a crash loop lasts, the next start comes within seconds."""
    assert 0 <= backoff(deaths) <= backoff(deaths + 1) <= MAX_BACKOFF_S


def test_keeper_gets_the_flags_and_a_rank() -> None:
    """Its command line is that of the supervisor without what made it one, and with its rank."""
    given_flags = ["--socket=/s", "--supervise", "--kubelet-root", "/k"]
    before = rank()
    *command, flag, number = command_of_keeper(given_flags)
    assert command == [sys.executable, "-m", "fusefs", "--socket=/s", "--kubelet-root", "/k"]
    assert flag == "--rank"
    assert before <= int(number) <= rank()


class Supervised:
    """A supervisor, and keepers that print their pid and end with 5 when they are asked to."""

    def __init__(self, keeper: str = KEEPER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, sys.executable, "-c", keeper],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def next_pid(self) -> int:
        """Wait for the next keeper."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask the supervisor to end and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    """Return a supervisor, which is ended and closed after the test."""
    started = Supervised()
    yield started
    started.process.kill()
    started.process.communicate()


def test_dead_keeper_is_started_again(supervised: Supervised) -> None:
    """Whatever it died of, another one comes."""
    pids = [supervised.next_pid()]
    for _ in range(2):
        os.kill(pids[-1], signal.SIGKILL)
        pids.append(supervised.next_pid())
    assert len(set(pids)) == 3
    assert supervised.stop() == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_request_to_stop_reaches_the_keeper(supervised: Supervised, number: signal.Signals) -> None:
    """The supervisor waits for its keeper, and ends with the keeper's exit code."""
    pid = supervised.next_pid()
    assert supervised.stop(number) == 5
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_deaths_are_logged_with_their_code(supervised: Supervised) -> None:
    """A person who reads the log sees what the keeper ended with."""
    os.kill(supervised.next_pid(), signal.SIGKILL)
    supervised.next_pid()
    supervised.stop()
    assert supervised.process.stderr is not None
    assert "the keeper ended with -9" in supervised.process.stderr.read()


def test_keeper_that_handed_over_has_no_successor() -> None:
    """Another pod's keeper serves: none is started again, and the end is a good one."""
    supervised = Supervised(f"import os; print(os.getpid(), flush=True); os._exit({HANDED_OVER})")
    with supervised.process:
        pid = supervised.next_pid()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline, "it is not reaped"
        assert supervised.stop() == 0
        assert supervised.process.stdout is not None
        assert supervised.process.stdout.read() == ""

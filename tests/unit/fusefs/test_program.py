"""What is checked before a keeper serves, and what a person is told."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fusefs import readyfile, sandbox
from fusefs.__main__ import main
from fusefs.config import (
    KEEPER_BYTES,
    MAX_VOLUMES,
    budget_of_volumes,
    check_privileges,
    check_uid_base,
)
from fusefs.errors import CannotStart

if TYPE_CHECKING:
    from pathlib import Path


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "fusefs", *flags],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_uids_of_nobody_are_accepted() -> None:
    """The default and the highest possible base are fine on any machine of ours."""
    check_uid_base(2_000_000_000)
    check_uid_base(2**32 - 2 - MAX_VOLUMES)


def test_keeper_keeps_memory_for_itself() -> None:
    """Of a limit volumes get the rest, of a small one nothing; without one there is no budget."""
    assert budget_of_volumes(KEEPER_BYTES + 7) == 7
    assert budget_of_volumes(KEEPER_BYTES - 1) == 0
    assert budget_of_volumes(None) is None


@pytest.mark.parametrize("base", [0, -1, 2**32 - 1 - MAX_VOLUMES, 2**32])
def test_uids_that_there_are_not_are_refused(base: int) -> None:
    """Root is no uid for a worker, and neither is a number that is none."""
    with pytest.raises(CannotStart, match="--worker-uid-base must be from 1 to"):
        check_uid_base(base)


@pytest.mark.parametrize("below", [0, MAX_VOLUMES - 1])
def test_uids_of_accounts_are_refused(tmp_path: Path, below: int) -> None:
    """An account with a worker's uid could signal it: the error names account and file."""
    accounts = tmp_path / "passwd"
    accounts.write_text(
        "root:x:0:0::/root:/bin/sh\n\n# a comment\n+::::::\npat:x:70000:70000:P\xe4t:/:/bin/sh\n",
        encoding="latin-1",
    )
    with pytest.raises(CannotStart, match=f"account 'pat' in {accounts} has uid 70000, .*another"):
        check_uid_base(70_000 - below, str(accounts))
    check_uid_base(70_001, str(accounts))
    check_uid_base(70_000 - MAX_VOLUMES, str(accounts))


def test_accounts_of_the_node_must_be_there(tmp_path: Path) -> None:
    """A file of accounts that cannot be read is no reason to believe that there are none."""
    with pytest.raises(CannotStart, match=r"--passwd-file .*/passwd: No such file"):
        check_uid_base(70_000, str(tmp_path / "passwd"))


def test_ready_file_is_there_while_shown(tmp_path: Path) -> None:
    """It comes and goes with the block, also when that fails, and whatever was there before."""
    path = tmp_path / "ready"
    path.write_text("of a killed predecessor")
    readyfile.withdraw(str(path))
    assert not path.exists()
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError), readyfile.shown(str(path)):
            assert path.exists()
            raise ZeroDivisionError
        assert not path.exists()
    with readyfile.shown(None):
        readyfile.withdraw(None)


def test_impossible_ready_file_is_named(tmp_path: Path) -> None:
    """Before anything is served, with the flag and what would be right."""
    path = str(tmp_path / "file" / "ready")
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match=r"--ready-file .*: Not a directory; give a file in"):
        readyfile.withdraw(path)
    with (
        pytest.raises(CannotStart, match=r"--ready-file .*: Not a directory; give a file in"),
        readyfile.shown(path),
    ):
        pass


def test_next_start_removes_a_stale_file(tmp_path: Path) -> None:
    """A program that does not get to serve leaves no file that says it does."""
    stale = tmp_path / "ready"
    stale.touch()
    assert run("--socket=/s", f"--ready-file={stale}", "--worker-uid-base=0").returncode == 1
    assert not stale.exists()


def test_keeper_must_run_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root it could mount nothing, and says so at once."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotStart, match="must run as root"):
        check_privileges()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    check_privileges()


@pytest.mark.parametrize("privileged", [True, False])
def test_limits_are_raised_as_far_as_they_may(
    monkeypatch: pytest.MonkeyPatch, announced: list[str], *, privileged: bool
) -> None:
    """Workers map what is in secret memory; where that is limited the log says what is missing."""
    limits: dict[int, tuple[int, int]] = {}

    def set_limit(limited: int, wanted: tuple[int, int]) -> None:
        if not privileged and wanted[1] not in range(101):
            raise ValueError
        limits[limited] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 100))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    if not privileged:
        announced.append("100 bytes of secret memory and no more.*CAP_SYS_RESOURCE")
    sandbox.raise_limits()
    most = resource.RLIM_INFINITY if privileged else 100
    assert limits == {
        resource.RLIMIT_NOFILE: (100, 100),
        resource.RLIMIT_MEMLOCK: (most, most),
    }


def test_flags_are_shown_with_their_defaults() -> None:
    """The help names every flag."""
    shown = run("--help")
    assert shown.returncode == 0
    flags = {flag for option in main.params for flag in option.opts}
    assert {"--socket", "--ready-file"} < flags
    assert [flag for flag in flags if flag not in shown.stdout] == []


def test_missing_socket_is_asked_for() -> None:
    """Without a socket there is nothing to serve; the exit code is that of wrong usage."""
    answer = run()
    assert answer.returncode == 2
    assert "--socket" in answer.stderr


def test_wrong_uid_base_ends_the_program(tmp_path: Path) -> None:
    """One line says what is wrong, without a traceback."""
    answer = run("--socket", str(tmp_path / "s"), "--worker-uid-base=0")
    assert answer.returncode == 1
    assert "Error: --worker-uid-base must be from 1 to 4294966294\n" in answer.stderr
    assert "Traceback" not in answer.stderr

"""`python -m provider`: flags, and what stops it from starting."""

from __future__ import annotations

import importlib.metadata
import logging
import signal
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from harness.programs import Program
from provider.__main__ import main
from provider.app import program_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def runner() -> Iterator[CliRunner]:
    """Return a runner, and put the process's logging back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield CliRunner()
    root.handlers[:] = handlers
    root.setLevel(level)


def refused(runner: CliRunner, *arguments: str, **environment: str) -> Result:
    """Run the program with arguments that it does not start with."""
    result = runner.invoke(main, arguments, env=environment)
    assert result.exit_code != 0
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--endpoint", "tcp://127.0.0.1:1"], "invalid endpoint: tcp://127.0.0.1:1; secrets are"),
        (["--endpoint=unix:///no/such/dir/a.sock"], "no socket can be made at /no/such/dir/a.sock"),
        (["--cloud-name", "Mars"], 'no cloud environment matching the name "MARS"'),
        (["--cloud-files-dir", "relative"], "--cloud-files-dir relative is not an absolute path"),
        (["--ready-file=/no/such/dir/a"], "--ready-file /no/such/dir/a: No such file or directory"),
        (["--log-format-json=maybe"], 'parsing "maybe": invalid syntax'),
        (["--log-level", "loud"], "'loud' is not one of"),
        (["--no-such-flag"], "No such option"),
    ],
)
def test_a_wrong_flag_is_named(runner: CliRunner, arguments: list[str], words: str) -> None:
    """The program does not start, and says which flag and why."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert words in refused(runner, *arguments).output
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_a_missing_trust_store_is_told_at_once(runner: CliRunner) -> None:
    """Not at the first mount, hours later."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        result = refused(runner, REQUESTS_CA_BUNDLE="/no/such/ca.pem")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert "REQUESTS_CA_BUNDLE names /no/such/ca.pem, which does not exist" in result.output


@pytest.mark.parametrize("flag", ["--log-format-json", "--log-format-json=true"])
def test_a_stopped_program_leaves_nothing(tmp_path: Path, flag: str) -> None:
    """SIGTERM ends it with exit status 0, and its socket is gone."""
    directory = tmp_path / "sockets"
    directory.mkdir()
    arguments = ["provider", "--endpoint", f"unix://{directory}/azure.sock", flag]
    arguments += ["--ready-file", f"{directory}/ready"]
    with Program("provider", arguments, log=tmp_path / "log") as program:
        program.wait_until((directory / "ready").exists, "the ready file")
        assert (directory / "azure.sock").is_socket()
        assert program.stop() == 0
        assert list(directory.iterdir()) == []
        assert '"message": "received SIGTERM"' in program.log


def test_the_next_start_removes_a_stale_file(runner: CliRunner, tmp_path: Path) -> None:
    """A program that does not get to serve leaves no file that says it does."""
    stale = tmp_path / "ready"
    stale.touch()
    refused(runner, "--ready-file", str(stale), "--endpoint", "tcp://127.0.0.1:1")
    assert not stale.exists()


def test_the_version_is_the_distribution_s() -> None:
    """What `Version` answers names this program."""
    assert program_version()[0].isdigit()


def test_a_tree_that_is_not_installed_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that runs from its sources answers, too."""

    def fail(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", fail)
    assert program_version() == "0.0.0"

"""`akvfs playground set`: the command, the socket, and what comes back."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from click.testing import CliRunner

from csi.cli import control, main, workspace
from csi.cli.errors import ControlFailed, NotRunning, UnknownSecret, VaultRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from click.testing import Result

RUN = "0123456789abcdef0123456789abcdef"
VALUE = "canary-value"


class FakeVault:
    """Keeps one secret."""

    def __init__(self) -> None:
        self.value = ""

    async def set_secret(self, name: str, value: str) -> str:
        """Take a value for `known`, and no long one."""
        await trio.lowlevel.checkpoint()
        if name != "known":
            raise UnknownSecret(name, ["known"])
        if len(value) > 100:
            message = "the vault does not take the value"
            raise VaultRefused(message)
        self.value = value
        return "version-1"


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[FakeVault]:
    """Take orders as the playground in `directory` does."""
    (directory / workspace.STATE).write_text(f'{{"run": "{RUN}", "created": []}}')
    used, vault = workspace.used_by_run(directory), FakeVault()
    assert used is not None
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, used.control_socket, vault.set_secret)
        yield vault
        nursery.cancel_scope.cancel()


async def run(*arguments: str, stdin: str | None = None) -> Result:
    """Run the command line beside the loop that answers it."""
    return await trio.to_thread.run_sync(lambda: CliRunner().invoke(main, arguments, input=stdin))


async def test_set_returns_the_version(tmp_path: Path) -> None:
    """The value arrives, and the command says which version it is now."""
    async with serving(tmp_path) as vault:
        done = await run("playground", "set", "known", VALUE, "--dir", str(tmp_path))
    assert (done.exit_code, done.output) == (0, "known is now version version-1\n")
    assert vault.value == VALUE


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        pytest.param(("known", "-"), "from stdin\n", "from stdin", id="standard-input"),
        pytest.param(("known", "-x=1"), None, "-x=1", id="like-an-option"),
        pytest.param(("known", ""), None, "", id="empty"),
        pytest.param(("known", "línea\nzwei"), None, "línea\nzwei", id="several-lines"),
    ],
)
async def test_value_arrives_as_it_was_given(
    tmp_path: Path, arguments: tuple[str, ...], stdin: str | None, expected: str
) -> None:
    """Values are taken literally, but for "-", which is standard input."""
    async with serving(tmp_path) as vault:
        vault.value = "before"
        done = await run("playground", "set", "--dir", str(tmp_path), *arguments, stdin=stdin)
    assert done.exit_code == 0, done.output
    assert vault.value == expected


async def test_folder_may_come_before_the_command(tmp_path: Path) -> None:
    """`--dir` belongs to the playground, so it may be given there."""
    async with serving(tmp_path) as vault:
        done = await run("playground", "--dir", str(tmp_path), "set", "known", VALUE)
    assert (done.exit_code, vault.value) == (0, VALUE)


async def test_unknown_name_is_a_usage_error(tmp_path: Path) -> None:
    """It exits 2 and tells the names that there are."""
    async with serving(tmp_path):
        done = await run("playground", "set", "other", VALUE, "--dir", str(tmp_path))
    assert done.exit_code == 2
    assert "there is no secret 'other'; there are known" in done.output
    assert VALUE not in done.output


async def test_refused_value_is_told_without_it(tmp_path: Path) -> None:
    """What the vault does not take exits 1; the value is not repeated."""
    async with serving(tmp_path):
        done = await run("playground", "set", "known", VALUE * 20, "--dir", str(tmp_path))
    assert (done.exit_code, done.output) == (1, "Error: the vault does not take the value\n")


async def test_nobody_there_is_told_at_once(tmp_path: Path) -> None:
    """Without a run, and after a killed one, the command says how to start one."""
    for _ in range(2):
        done = await run("playground", "set", "known", VALUE, "--dir", str(tmp_path))
        assert done.exit_code == 1
        assert f"start one: akvfs playground --dir {tmp_path}" in done.output
        (tmp_path / workspace.STATE).write_text(f'{{"run": "{RUN}", "created": []}}')


async def test_garbage_does_not_stop_the_server(tmp_path: Path) -> None:
    """A line that is no order is answered with an error, and the next order is carried out."""
    async with serving(tmp_path):
        stream = await trio.open_unix_socket(tmp_path / "playground.sock")
        async with stream:
            await stream.send_all(b"garbage\n")
            assert b'"error":"' in await stream.receive_some()
        silent = await trio.open_unix_socket(tmp_path / "playground.sock")
        await silent.aclose()
        version = await trio.to_thread.run_sync(control.set_secret, tmp_path, "known", VALUE)
    assert version == "version-1"


async def test_errors_cross_the_socket(tmp_path: Path) -> None:
    """The client raises what the vault raised."""
    async with serving(tmp_path):
        with pytest.raises(UnknownSecret) as unknown:
            await trio.to_thread.run_sync(control.set_secret, tmp_path, "other", VALUE)
        with pytest.raises(ControlFailed):
            await trio.to_thread.run_sync(control.set_secret, tmp_path, "known", VALUE * 20)
    assert unknown.value.known == ["known"]
    with pytest.raises(NotRunning):
        await trio.to_thread.run_sync(control.set_secret, tmp_path, "known", VALUE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("playground",), "--dir", id="playground-without-folder"),
        pytest.param(("playground", "set", "known", "x"), "--dir", id="set-without-folder"),
        pytest.param(("playground", "set", "--dir", "/x"), "NAME", id="set-without-name"),
        pytest.param(("playground", "set", "a", "--dir", "/x"), "VALUE", id="set-without-value"),
        pytest.param(("playground", "--dir", "/etc/passwd"), "is a file", id="folder-is-a-file"),
        pytest.param(("unknown",), "No such command", id="unknown-command"),
    ],
)
async def test_usage_errors_exit_two(arguments: tuple[str, ...], words: str) -> None:
    """What is missing or wrong on the command line is named."""
    done = await run(*arguments)
    assert done.exit_code == 2
    assert words in done.output


@pytest.mark.parametrize("command", [("demo",), ("playground", "--dir", "/nowhere")])
async def test_root_is_asked_for(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    """Who may not mount is told so before anything is started."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    done = await run(*command)
    assert done.exit_code == 1
    assert "run it as root" in done.output

"""The emulator as a program: files, signals, restarts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from provider.emulator import (
    ConfigInvalid,
    EmulatorClient,
    EmulatorConfig,
    EmulatorUnavailable,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_S = 20
FILES = {"admin-token", "ca.pem", "cloud.json", "emulator.json", "hosts"}


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """Write a configuration."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "tenant: t\n"
        "principals: {app: {client_id: c, client_secret: s}}\n"
        "vaults: {demo: {access: {app: [get]}, secrets: {a: from-the-file}}}\n"
    )
    return path


@contextlib.contextmanager
def program(directory: Path, config_file: Path, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Run the program until it serves; kills it in the end if it still runs."""
    command = [sys.executable, "-m", "provider.emulator", "--dir", str(directory)]
    command += ["--config", str(config_file), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "emulator serves" in line:
                    break
            yield process
        finally:
            process.kill()


def test_program_describes_itself_and_leaves_nothing(tmp_path: Path, config_file: Path) -> None:
    """The files are complete when it serves; SIGTERM ends it with 0 and takes them back."""
    home = tmp_path / "home"
    with program(home, config_file) as process:
        assert {path.name for path in home.iterdir()} == FILES
        index = json.loads((home / "emulator.json").read_text())
        assert index["pid"] == process.pid
        assert index["url"] == f"https://127.0.0.1:{index['port']}"
        assert stat.S_IMODE((home / "admin-token").stat().st_mode) == 0o600
        cloud_file = EmulatorClient.from_dir(home).cloud_file
        assert cloud_file == home / "cloud.json"
        assert json.loads(cloud_file.read_text()) == {
            "name": "AzureStackCloud",
            "activeDirectoryEndpoint": f"https://login.akv.test:{index['port']}/",
            "keyVaultEndpoint": f"https://vault.akv.test:{index['port']}/",
            "keyVaultDNSSuffix": f"vault.akv.test:{index['port']}",
        }
        hosts = (home / "hosts").read_text()
        assert "127.0.0.1 localhost\n" in hosts
        assert "127.0.0.1 login.akv.test\n127.0.0.1 demo.vault.akv.test\n" in hosts
        assert "from-the-file" not in "".join(path.read_text() for path in home.iterdir())
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_S) == 0
        assert not home.exists()


def test_restart_after_a_kill_takes_over(tmp_path: Path, config_file: Path) -> None:
    """After SIGKILL the same port and directory serve again; a supervisor restores the state."""
    client = EmulatorClient.from_dir(tmp_path)
    with program(tmp_path, config_file) as process:
        port = client.port
        client.set_secret("demo", "a", "set-at-run-time")
        state = client.export_state()
        assert state is not None
        process.send_signal(signal.SIGKILL)
        process.wait(START_S)
        with pytest.raises(EmulatorUnavailable):
            client.request_log()
    with program(tmp_path, config_file, port) as process:
        assert client.port == port
        fresh = client.export_state()
        assert fresh is not None
        assert [secret.latest.value for secret in fresh.vaults["demo"].secrets] == ["from-the-file"]
        client.restore_state(state)
        assert client.export_state() is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_S) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_predecessor_leaves_a_successors_files(config: EmulatorConfig, tmp_path: Path) -> None:
    """What another emulator has put in place meanwhile is not removed."""
    with contextlib.ExitStack() as older, contextlib.ExitStack() as newer:
        older.enter_context(running(config, tmp_path))
        client = newer.enter_context(running(config, tmp_path))
        older.close()
        assert client.request_log() == []
        assert {path.name for path in tmp_path.iterdir()} == FILES
    assert list(tmp_path.iterdir()) == []


def test_taken_port_is_an_error(config: EmulatorConfig, tmp_path: Path) -> None:
    """A second emulator on the same port fails, and leaves the first one's files alone."""
    with running(config, tmp_path / "first") as client:
        second = running(config, tmp_path / "second", client.port)
        with pytest.raises(OSError, match="Address already in use"), second:
            pass
        assert client.request_log() == []
        assert not (tmp_path / "second").exists()


def test_first_secret_beyond_a_limit_is_named(tmp_path: Path) -> None:
    """A secret of the configuration that the service would refuse is a configuration error."""
    text = "tenant: t\nprincipals: {}\nvaults: {demo: {secrets: {a_b: c}}}\n"
    wrong = running(EmulatorConfig.parse(text), tmp_path)
    with pytest.raises(ConfigInvalid, match=r"vaults\.demo\.secrets\.a_b: .*invalid name"), wrong:
        pass
    assert list(tmp_path.iterdir()) == []


def test_wrong_configuration_ends_the_program(tmp_path: Path) -> None:
    """A configuration error is one line that names the field, and exit code 1."""
    config = tmp_path / "config.yaml"
    config.write_text("tenant: t\nprincipals: {}\nvaults: {x: {}}\n")
    command = [sys.executable, "-m", "provider.emulator", "--dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: emulator configuration, vaults.x: must have 3 to 24 letters, digits and hyphens,"
        " and start with a letter\n"
    )

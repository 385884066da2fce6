"""The emulator as a program: files, signals, restarts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

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
def program(
    directory: Path, config_file: Path, port: int = 0, *options: str
) -> Iterator[subprocess.Popen[str]]:
    """Run the program until it serves; kills it in the end if it still runs."""
    command = [sys.executable, "-m", "provider.emulator", "--dir", str(directory)]
    command += ["--config", str(config_file), "--port", str(port), *options]
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


def test_other_address_is_named_everywhere(tmp_path: Path, config_file: Path) -> None:
    """Hosts file, index and certificate name the address that it serves on, and no other."""
    with program(tmp_path, config_file, 0, "--address", "127.0.0.2"):
        client = EmulatorClient.from_dir(tmp_path)
        assert client.url == f"https://127.0.0.2:{client.port}"
        assert client.request_log() == []
        assert client.index.no_proxy == ".vault.akv.test,login.akv.test,127.0.0.2"
        names = client.hosts_file.read_text().splitlines()
        assert names[2:] == ["127.0.0.2 login.akv.test", "127.0.0.2 demo.vault.akv.test"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", client.port), timeout=10)


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "::1", "localhost"])  # noqa: S104 - refused
def test_unreachable_addresses_are_refused(
    config: EmulatorConfig, tmp_path: Path, address: str
) -> None:
    """An address that no client can be sent to is refused before anything is made."""
    wrong = running(config, tmp_path, address=address)
    with pytest.raises(ConfigInvalid, match=rf"--address: {address}.*: give"), wrong:
        pass
    assert list(tmp_path.iterdir()) == []


def test_kept_key_makes_the_same_authority(tmp_path: Path, config_file: Path) -> None:
    """A client that trusts the first start's authority reaches a later one's server."""
    key, trusted = tmp_path / "keys" / "ca.pem", tmp_path / "trusted.pem"
    home = tmp_path / "home"
    options = ("--ca-key-file", str(key))
    with program(home, config_file, 0, *options) as process:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        trusted.write_bytes((home / "ca.pem").read_bytes())
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_S) == 0
    with program(home, config_file, 0, *options):
        client = EmulatorClient.from_dir(home)
        context = ssl.create_default_context(cafile=trusted)
        with (
            socket.create_connection(("127.0.0.1", client.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="login.akv.test") as secured,
        ):
            assert secured.version() is not None
    assert [path.name for path in key.parent.iterdir()] == [key.name]


@pytest.mark.parametrize("content", ["", "no key", "rsa"])
def test_foreign_key_file_is_refused(config: EmulatorConfig, tmp_path: Path, content: str) -> None:
    """A file that holds something else than our kind of key is left alone."""
    key = tmp_path / "ca-key.pem"
    if content == "rsa":
        key.write_bytes(
            rsa.generate_private_key(65537, 2048).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    else:
        key.write_text(content)
    before = key.read_bytes()
    wrong = running(config, tmp_path / "home", ca_key_file=key)
    with pytest.raises(ConfigInvalid, match=r"--ca-key-file: .*remove it"), wrong:
        pass
    assert key.read_bytes() == before


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

"""`provider.emulator.hosts`: a program with host names of its own, and the machine's as before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from provider.emulator import EmulatorConfig, running

ACCOUNT: Final = ("6f1c6a0e-0000-4000-8000-000000000001", "client-app", "password-of-app")
CONFIG: Final = f"""
tenant: {ACCOUNT[0]}
principals: {{app: {{client_id: {ACCOUNT[1]}, client_secret: {ACCOUNT[2]}}}}}
vaults: {{demo: {{access: {{app: [get]}}, secrets: {{db-password: seen-by-name}}}}}}
"""
READ_SECRET: Final = """
import sys
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient
login, ca_file, vault, *account = sys.argv[1:]
credential = ClientSecretCredential(
    *account, authority=login, disable_instance_discovery=True, connection_verify=ca_file
)
client = SecretClient(vault, credential, connection_verify=ca_file)
print(client.get_secret("db-password").value)
"""


def run(hosts_file: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command under the launcher."""
    launcher = [sys.executable, "-m", "provider.emulator.hosts", "--hosts-file", str(hosts_file)]
    return subprocess.run(
        [*launcher, "--", *command], capture_output=True, text=True, check=False, timeout=30
    )


def mounts_on_etc_hosts() -> list[str]:
    """Return what lies over this process's `/etc/hosts`."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] == "/etc/hosts"]


def test_sdk_finds_the_emulator_by_name() -> None:
    """The unmodified SDK with its own transport reads a secret; the machine's hosts stay."""
    before = Path("/etc/hosts").read_bytes()
    with running(EmulatorConfig.parse(CONFIG)) as emulator:
        arguments = (emulator.login_url, str(emulator.ca_file), emulator.vaults["demo"])
        done = run(emulator.hosts_file, sys.executable, "-c", READ_SECRET, *arguments, *ACCOUNT)
        assert (done.stdout, done.returncode) == ("seen-by-name\n", 0), done.stderr
    assert Path("/etc/hosts").read_bytes() == before


def test_mount_stays_in_the_namespace(tmp_path: Path) -> None:
    """The command sees the file, this process does not, and options go through untouched."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 only-here.test\n")
    before = mounts_on_etc_hosts()
    done = run(hosts, "sh", "-c", "cat /etc/hosts; grep -c /etc/hosts /proc/self/mountinfo")
    assert done.stdout.splitlines()[0] == "127.0.0.1 only-here.test"
    assert int(done.stdout.splitlines()[-1]) >= 1
    assert mounts_on_etc_hosts() == before


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param(("sh", "-c", "exit 7"), 7, id="its-own-code"),
        pytest.param(("/no/such/program",), 127, id="missing"),
        pytest.param(("/etc/passwd",), 126, id="not-executable"),
    ],
)
def test_exit_code_is_the_commands(tmp_path: Path, command: tuple[str, ...], code: int) -> None:
    """The launcher is replaced by the command, or says why it could not be."""
    hosts = tmp_path / "hosts"
    hosts.write_text("")
    done = run(hosts, *command)
    assert done.returncode == code
    assert code == 7 or command[0] in done.stderr


def test_missing_hosts_file_is_named(tmp_path: Path) -> None:
    """A hosts file that is not there is a usage error."""
    done = run(tmp_path / "nothing", "true")
    assert done.returncode == 2
    assert "--hosts-file" in done.stderr


def test_launcher_needs_the_capability(tmp_path: Path) -> None:
    """Without CAP_SYS_ADMIN nothing is run, and the message says what is missing."""
    hosts = tmp_path / "hosts"
    hosts.write_text("")
    hosts.chmod(0o644)
    done = subprocess.run(
        [
            *("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable),
            *("-m", "provider.emulator.hosts", "--hosts-file", str(hosts), "--", "echo", "ran"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "run it as root" in done.stderr

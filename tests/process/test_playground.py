"""`akvfs playground` as a whole: what it says, what it survives, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from harness.playground import PROGRAMS, Playground, akvfs, listing, mounts_in
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS: Final = {
    *("target", "csi_socket", "provider_socket", "keeper_socket", "emulator_url"),
    *("secrets", "pids", "workers"),
}
SERVES_AGAIN_S: Final = 10.0
CURRENT_S: Final = 1.0
END_S: Final = 15.0
SECRET: Final = "db-password"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """Run a playground for all tests that leave it as they found it."""
    parent = tmp_path_factory.mktemp("playground")
    playground = Playground(parent / "dir", parent / "log")
    with playground.program:
        playground.wait_until_up()
        yield playground


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Playground]:
    """Run a playground for one test alone."""
    playground = Playground(tmp_path / "dir", tmp_path / "log")
    with playground.program:
        playground.wait_until_up()
        yield playground


def processes_of(index: dict[str, Any]) -> list[Path]:
    """Return what is in /proc for each process of an index."""
    return [Path(f"/proc/{pid}") for pid in (*index["pids"].values(), *index["workers"].values())]


def test_index_names_what_answers(running: Playground) -> None:
    """Everything in `playground.json` is there, and the secrets can be read."""
    index = running.index()
    assert index.keys() == KEYS
    assert index["pids"].keys() == set(PROGRAMS)
    for key in ("csi_socket", "provider_socket", "keeper_socket"):
        assert stat.S_ISSOCK(Path(index[key]).stat().st_mode)
    assert len(index["secrets"]) >= 2
    for name, path in index["secrets"].items():
        assert path.startswith(f"{index['target']}/")
        assert running.read(name)
    [worker] = index["workers"].values()
    commands = {
        pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (*index["pids"].values(), worker)
    }
    assert b"fusefs" in commands[index["pids"]["keeper"]]
    assert b"fusefs" in commands[worker]
    assert b"csi" in commands[index["pids"]["node"]]
    assert b"provider.emulator\0" in commands[index["pids"]["emulator"]]
    assert b"provider\0" in commands[index["pids"]["provider"]]


def test_set_secret_reaches_the_file(running: Playground) -> None:
    """When `set` returns the vault has the value; the file follows at the next refresh."""
    done = running.set("api-key", "set by the test")
    assert done.returncode == 0, done.stderr
    running.wait(lambda: running.read("api-key") == "set by the test", "the new value")


def test_unknown_secret_exits_two(running: Playground) -> None:
    """A name that is not there is a usage error that names the ones that are."""
    done = running.set("no-such-secret", "value")
    assert done.returncode == 2
    assert "'no-such-secret'" in done.stderr
    assert SECRET in done.stderr


def test_value_the_vault_refuses_exits_one(running: Playground) -> None:
    """What Key Vault would not take is told as such, and the file keeps its content."""
    before = running.read(SECRET)
    done = running.set(SECRET, "x" * 30_000)
    assert done.returncode == 1
    assert "the vault does not take the value" in done.stderr
    assert "xxx" not in done.stderr
    assert running.read(SECRET) == before


@pytest.mark.parametrize("kind", ["worker", "node", "provider", "emulator"])
def test_killed_process_costs_no_read(running: Playground, kind: str) -> None:
    """Reads go on, the index names the successor within a second, and rotation comes back."""
    with running.reading() as report:
        assert running.kill(kind, signal.SIGKILL) < CURRENT_S
        value = f"after the {kind}"
        assert running.set(SECRET, value).returncode == 0
        running.wait(lambda: running.read(SECRET) == value, value)
    assert report["failures"] == []
    assert report["begun"] > 0


def test_secrets_survive_the_emulator(running: Playground) -> None:
    """What `set` has returned for is in the vault after its process was killed at once."""
    for name in ("api-key", SECRET):
        value = f"{name} before the kill"
        assert running.set(name, value).returncode == 0
        running.kill("emulator", signal.SIGKILL)
        running.wait(lambda name=name, value=value: running.read(name) == value, value)  # type: ignore[misc]


def test_killed_keeper_is_repaired_in_time(running: Playground) -> None:
    """The target serves again within ten seconds, and rotation goes on."""
    before = running.read(SECRET)
    worker = running.pid("worker")
    assert running.kill("keeper", signal.SIGKILL) < CURRENT_S
    running.wait(lambda: running.read(SECRET) == before, "reads", SERVES_AGAIN_S)
    running.wait(lambda: running.pid("worker") not in {worker, None}, "a worker", CURRENT_S)
    assert running.set(SECRET, "after the keeper").returncode == 0
    running.wait(lambda: running.read(SECRET) == "after the keeper", "rotation")


def test_everything_killed_at_once_comes_back(running: Playground) -> None:
    """Four programs die together; the volume is published anew with what the vault held."""
    assert running.set(SECRET, "before it all died").returncode == 0
    for pid in running.index()["pids"].values():
        os.kill(pid, signal.SIGKILL)
    running.wait(lambda: running.read(SECRET) == "before it all died", "reads")
    assert running.set(SECRET, "after it all died").returncode == 0
    running.wait(lambda: running.read(SECRET) == "after it all died", "rotation")


def test_busy_folder_is_refused(running: Playground) -> None:
    """A second playground in the folder does not start, and the first one does not notice."""
    done = akvfs("playground", "--dir", str(running.directory))
    assert done.returncode == 1
    assert "in use by another playground" in done.stderr
    assert running.read(SECRET)


def test_set_without_a_playground_says_so(tmp_path: Path) -> None:
    """Where nothing runs, `set` fails and names the command that starts one."""
    done = akvfs("playground", "set", SECRET, "value", "--dir", str(tmp_path))
    assert done.returncode == 1
    assert f"akvfs playground --dir {tmp_path}" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_restores_the_folder(tmp_path: Path, number: signal.Signals) -> None:
    """What was in the folder is there, what was not is gone; no process, mount or socket stays."""
    directory = tmp_path / "dir"
    (directory / "mine").mkdir(parents=True)
    (directory / "mine" / "file").write_text("untouched")
    before = listing(directory)
    playground = Playground(directory, tmp_path / "log")
    with playground.program:
        playground.wait_until_up()
        index = playground.index()
        os.kill(playground.program.pid, number)
        assert playground.program.ended(END_S)
        assert playground.program.stop() == 0
    assert listing(directory) == before
    assert mounts_in(directory) == []
    assert not [path for path in processes_of(index) if path.exists()]


def test_missing_folders_are_gone_again(tmp_path: Path) -> None:
    """Folders that were made for it are removed, above it too."""
    playground = Playground(tmp_path / "new" / "dir", tmp_path / "log")
    with playground.program:
        playground.wait_until_up()
    assert not (tmp_path / "new").exists()


def test_stopped_processes_do_not_delay_the_end(own: Playground) -> None:
    """Programs and worker under SIGSTOP are ended as well."""
    index = own.index()
    for pid in (*index["pids"].values(), *index["workers"].values()):
        os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    assert own.program.stop() == 0
    assert time.monotonic() - started < SERVES_AGAIN_S
    assert not own.directory.exists()


def test_start_cleans_up_after_a_kill(tmp_path: Path) -> None:
    """A killed playground takes its processes along; the next one removes what else is left."""
    directory = tmp_path / "dir"
    killed = Playground(directory, tmp_path / "log")
    with killed.program:
        killed.wait_until_up()
        index = killed.index()
        killed.program.kill()
    eventually(lambda: not any(path.exists() for path in processes_of(index)), "their end")
    assert mounts_in(directory)
    again = Playground(directory, tmp_path / "log2")
    with again.program:
        again.program.wait_until(lambda: "runs until" in again.program.log, "its greeting")
        assert not again.index()["pids"].items() & index["pids"].items()
        assert again.read(SECRET)
    assert not directory.exists()
    assert mounts_in(directory) == []


def test_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    """A folder that holds a name of ours already is refused and stays as it is."""
    (tmp_path / "kubelet").mkdir()
    done = akvfs("playground", "--dir", str(tmp_path))
    assert done.returncode == 1
    assert "holds kubelet already" in done.stderr
    assert listing(tmp_path) == {"kubelet": None}

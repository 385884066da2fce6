"""The folder of a run: who may have it, and what its state file can do. Mounts are tested apart."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi.cli import workspace
from csi.cli.errors import DirectoryRefused
from csi.cli.layout import Workspace
from csi.cli.workspace import undo

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "0123456789abcdef0123456789abcdef"
_MAX_SOCKET_PATH = 107


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a folder as a run does."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def refused(directory: Path) -> str:
    """Return why a folder is refused."""
    with pytest.raises(DirectoryRefused) as caught, workspace.occupied(directory):
        pytest.fail("it was taken")
    return str(caught.value)


def test_sockets_lie_in_the_folder_if_they_fit() -> None:
    """A short path holds everything."""
    place = Workspace(root=Path("/tmp/akvfs"), run=RUN)
    assert place.csi_socket == Path("/tmp/akvfs/csi/csi.sock")
    assert place.keeper_socket == Path("/tmp/akvfs/keeper/keeper.sock")
    assert place.provider_socket == Path("/tmp/akvfs/providers/azure.sock")
    assert place.control_socket == Path("/tmp/akvfs/playground.sock")


@pytest.mark.parametrize("length", [78, 79, 200])
def test_every_socket_path_can_be_bound(length: int) -> None:
    """However long the folder's path, a hidden name of each socket stays within the limit."""
    place = Workspace(root=Path("/" + "x" * length), run=RUN)
    for socket in (place.csi_socket, place.keeper_socket, place.provider_socket):
        assert len(str(socket.with_name(f".{socket.name}.4194304"))) <= _MAX_SOCKET_PATH
    assert place.kubelet.parent == place.root
    assert place.index.parent == place.root


def test_foreign_names_are_refused_untouched(tmp_path: Path) -> None:
    """A name that a run would make is somebody else's when it is there before."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "playground.json").write_text("mine")
    assert "holds logs, playground.json already" in refused(tmp_path)
    assert (tmp_path / "playground.json").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "playground.json"]


def test_locked_folder_is_in_use(tmp_path: Path) -> None:
    """Whoever holds the lock uses the folder, and nobody else gets it meanwhile."""
    assert not workspace.is_running(tmp_path)
    with locked(tmp_path):
        assert workspace.is_running(tmp_path)
        assert "in use by another playground" in refused(tmp_path)
    assert not workspace.is_running(tmp_path)
    assert not workspace.is_running(tmp_path / "missing")


def test_path_through_a_file_is_refused(tmp_path: Path) -> None:
    """A folder that cannot be made is named, and nothing is made."""
    (tmp_path / "file").write_text("")
    assert "cannot be made" in refused(tmp_path / "file" / "dir")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="no-json"),
        pytest.param('{"run": "../../etc", "created": []}', id="strange-run"),
        pytest.param(f'{{"run": "{RUN}"}}', id="field-missing"),
    ],
)
def test_strange_state_file_is_refused(tmp_path: Path, text: str) -> None:
    """A state file that no run wrote leads to nothing but a message."""
    (tmp_path / workspace.STATE).write_text(text)
    assert "not from a playground" in refused(tmp_path)
    assert (tmp_path / workspace.STATE).exists()


def test_killed_run_is_known_by_its_state(tmp_path: Path) -> None:
    """The state file tells the marker, from which every path follows."""
    assert workspace.used_by_run(tmp_path) is None
    (tmp_path / workspace.STATE).write_text(f'{{"run": "{RUN}", "created": []}}')
    found = workspace.used_by_run(tmp_path)
    assert found == Workspace(root=tmp_path, run=RUN)


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    """Folders and files of the run go, those made for it too; what is not its own stays."""
    parent, other = tmp_path / "made", tmp_path / "other"
    root = parent / "dir"
    root.mkdir(parents=True)
    other.mkdir()
    created = f'["{parent}", "{root}", "{other}"]'
    (root / workspace.STATE).write_text(f'{{"run": "{RUN}", "created": {created}}}')
    (root / "kubelet" / "pods").mkdir(parents=True)
    (root / "emulator").symlink_to(other)
    (root / "playground.json").write_text("{}")
    (root / "pod").write_text("not a folder, so not of the run")
    with pytest.raises(NotADirectoryError):
        undo(Workspace(root=root, run=RUN))
    (root / "pod").unlink()
    undo(Workspace(root=root, run=RUN))
    assert [path.name for path in root.iterdir()] == [workspace.STATE]
    assert other.exists()

"""What is asked of the kernel when a volume is mounted, without asking it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from fusefs import mounts, syscalls, tmpfs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABEL: Final = "system_u:object_r:container_file_t:s0:c1,c2"
STRING: Final = syscalls.FSCONFIG_SET_STRING
Call = tuple[int, str | None, str | None]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Note every parameter of a mount instead of setting it."""
    noted: list[Call] = []

    def note(_: int, command: int, key: str | None = None, value: str | None = None) -> None:
        noted.append((command, key, value))

    def opened(*_: object) -> int:
        return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(syscalls, "fsopen", opened)
    monkeypatch.setattr(syscalls, "fsconfig", note)
    monkeypatch.setattr(syscalls, "fsmount", opened)
    monkeypatch.setattr(syscalls, "move_mount", lambda *_: None)
    return noted


def fuse(path: Path, context: str) -> None:
    """Mount a FUSE volume."""
    mounts.mount_fuse(7, str(path), selinux_context=context)


def memory(path: Path, context: str) -> None:
    """Mount a tmpfs volume."""
    tmpfs.Tmpfs.create(str(path / "private"), selinux_context=context)


@pytest.mark.parametrize("mount", [fuse, memory])
def test_label_comes_before_the_superblock(
    calls: list[Call], tmp_path: Path, mount: Callable[[Path, str], None]
) -> None:
    """The label is one parameter of its own, commas and all, and set in time."""
    mount(tmp_path, LABEL)
    assert calls.count((STRING, "context", LABEL)) == 1
    assert calls[-1] == (syscalls.FSCONFIG_CMD_CREATE, None, None)


@pytest.mark.parametrize("mount", [fuse, memory])
def test_no_label_is_no_parameter(
    calls: list[Call], tmp_path: Path, mount: Callable[[Path, str], None]
) -> None:
    """A kernel without SELinux refuses even an empty one."""
    mount(tmp_path, "")
    assert "context" not in {key for _, key, _ in calls}


def test_fuse_is_mounted_with_these_options(calls: list[Call], tmp_path: Path) -> None:
    """Every option is ours; the device goes as a string."""
    fuse(tmp_path, "")
    assert {key: value for command, key, value in calls if command == STRING} == {
        "source": "akvfs",
        "subtype": "akvfs",
        "fd": "7",
        "rootmode": "40000",
        "user_id": "0",
        "group_id": "0",
    }
    flags = {key for command, key, _ in calls if command == syscalls.FSCONFIG_SET_FLAG}
    assert flags == {"allow_other", "default_permissions", "ro"}

"""The mount table, line by line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs import mountinfo
from fusefs.mountinfo import Mount, mounts, parse

if TYPE_CHECKING:
    from pathlib import Path

OURS = (
    "72 43 0:40 / /var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount ro,nosuid,nodev "
    "shared:3 - fuse.akvfs akvfs ro,user_id=0,group_id=0,allow_other"
)


def escape(text: str) -> str:
    """Write a path as the kernel does (proc(5))."""
    for character in "\\ \t\n":
        text = text.replace(character, f"\\{ord(character):03o}")
    return text


def only(line: str) -> Mount:
    """Return the mount of one line."""
    [found] = parse([line])
    return found


def test_line_of_ours_is_read_in_full() -> None:
    """Every column that is used is where proc(5) says it is."""
    found = only(OURS)
    assert (found.number, found.parent, found.device, found.root) == (72, 43, "0:40", "/")
    assert found.target.endswith("kubernetes.io~csi/v/mount")
    assert found.options == {"ro", "nosuid", "nodev"}
    assert found.propagation == ("shared:3",)
    assert (found.filesystem, found.source) == ("fuse.akvfs", "akvfs")
    assert found.super_options == {"ro", "user_id=0", "group_id=0", "allow_other"}
    assert found.is_ours


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("shared:3",),
        ("master:1",),
        ("shared:3", "master:1", "propagate_from:2"),
        ("unbindable",),
    ],
    ids=" ".join,
)
def test_optional_fields_may_be_any_number(fields: tuple[str, ...]) -> None:
    """The separator ends them, however many there are."""
    line = OURS.replace("shared:3 - ", " ".join([*fields, "- "]))
    assert only(line).propagation == fields
    assert only(line).filesystem == "fuse.akvfs"


@given(
    target=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    source=st.text("akv fs\\\t\n", min_size=1),
)
def test_escaped_names_come_back(target: str, source: str) -> None:
    """Blanks, line ends and backslashes in a path are the path's, not the table's."""
    line = f"1 0 0:1 / /{escape(target)} rw - tmpfs {escape(source)} rw"
    found = only(line)
    assert (found.target, found.source, found.root) == (f"/{target}", source, "/")


def test_unusual_line_ends_are_part_of_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel escapes the newline alone; other characters that end lines do not end one."""
    table = tmp_path / "mountinfo"
    names = ["a\x0bb", "a\x0cb", "a\x1cb", "a\u0085b", "a\u2028b"]
    lines = [f"{number} 0 0:1 / /{name} rw - tmpfs t rw" for number, name in enumerate(names)]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(mountinfo, "Path", lambda _: table)
    assert [mount.target for mount in mounts()] == [f"/{name}" for name in names]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("fuse.akvfs akvfs", "fuse.akvfs other", id="other-source"),
        pytest.param("fuse.akvfs akvfs", "fuse.other akvfs", id="other-subtype"),
        pytest.param("fuse.akvfs akvfs", "tmpfs akvfs", id="tmpfs"),
    ],
)
def test_mounts_of_others_are_not_ours(old: str, new: str) -> None:
    """Type and source together make a mount ours."""
    assert not only(OURS.replace(old, new)).is_ours


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("tmpfs akvfs", True),
        ("tmpfs tmpfs", True),
        ("tmpfs none", False),
        ("ramfs tmpfs", False),
        ("fuse.akvfs akvfs", False),
    ],
)
def test_tmpfs_volumes_are_told_by_their_source(kind: str, *, expected: bool) -> None:
    """Ours have our source, those of the reference driver the name of their type."""
    assert only(OURS.replace("fuse.akvfs akvfs", kind)).is_tmpfs is expected


def test_own_table_can_be_read() -> None:
    """The table of this process parses, and the root is in it."""
    assert "/" in {mount.target for mount in mounts()}
    assert parse(["", "\n"]) == []


def test_mount_of_a_descriptor_is_in_the_table(tmp_path: Path) -> None:
    """The number that the kernel gives for a descriptor is one of the table's."""
    directory = os.open(tmp_path, os.O_PATH)
    try:
        number = mountinfo.mount_number(directory)
        assert number in {mount.number for mount in mounts()}
        assert mountinfo.stack_on(directory, "nothing") == []
    finally:
        os.close(directory)


def test_hidden_mounts_are_not_in_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is stacked on the directory itself counts, not what lies below another mount."""
    directory = os.open(tmp_path, os.O_PATH)
    here = mountinfo.mount_number(directory)
    target = f"{os.readlink(f'/proc/self/fd/{directory}')}/mount"  # noqa: PTH115 - a descriptor
    lines = [
        f"900 1 0:1 / {target} rw - tmpfs hidden rw",
        f"901 {here} 0:2 / {target} rw - tmpfs lower rw",
        f"902 901 0:3 / {target} rw - fuse.akvfs akvfs rw",
        f"903 902 0:3 / {target}/below rw - tmpfs inside rw",
    ]
    monkeypatch.setattr(mountinfo, "mounts", lambda: parse(lines))
    try:
        stack = mountinfo.stack_on(directory, "mount")
    finally:
        os.close(directory)
    assert [mount.source for mount in stack] == ["lower", "akvfs"]

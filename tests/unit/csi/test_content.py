"""From a reply to files: groups, modes, and which object a file comes from."""

from __future__ import annotations

import pytest

from csi.content import file_specs
from csi.records import MountReply, ObjectVersion, ReturnedFile


def _reply(paths: list[str], ids: list[str], mode: int = 0o644) -> MountReply:
    return MountReply(
        files=tuple(ReturnedFile(path=path, mode=mode, content=b"x") for path in paths),
        versions=tuple(ObjectVersion(each, f"version of {each}") for each in ids),
    )


@pytest.mark.parametrize(
    ("paths", "ids", "objects"),
    [
        (["alias-a", "b"], ["secret/a", "secret/b"], ["secret/a", "secret/b"]),
        (["c.crt", "c.key"], ["cert/c"], ["cert/c", "cert/c"]),
        (["a", "b", "b.key"], ["secret/a", "cert/b"], ["secret/a", "cert/b", ""]),
        (["x/a", "y/a", "b"], ["secret/a", "secret/b"], ["", "", "secret/b"]),
        (["a", "b", "c"], ["secret/a", "key/a"], ["", "", ""]),
        (["a"], ["secret/a", "secret/b"], ["secret/a"]),
        (["alias"], ["secret/a", "secret/b"], [""]),
        (["dir/"], ["secret/", "secret/b"], [""]),
    ],
    ids=[
        "same-count-same-order",
        "one-object",
        "by-unique-name",
        "file-name-not-unique",
        "object-name-not-unique",
        "fewer-files",
        "no-name-in-common",
        "empty-names",
    ],
)
def test_files_are_linked_to_objects(paths: list[str], ids: list[str], objects: list[str]) -> None:
    """A link is made where it is certain, else left out."""
    specs = file_specs(_reply(paths, ids), group=None)
    assert [spec.object_id for spec in specs] == objects
    assert [spec.object_version for spec in specs] == [
        f"version of {each}" if each else "" for each in objects
    ]


@pytest.mark.parametrize(("asked", "mode"), [(0o400, 0o400), (0, 0), (0o4755, 0o755), (-1, 0o777)])
def test_modes_stay_as_asked_within_permissions(asked: int, mode: int) -> None:
    """Only permission bits count, and a missing mode is none: as in the reference."""
    [spec] = file_specs(_reply(["a"], ["secret/a"], asked), group=None)
    assert (spec.mode, spec.uid, spec.gid) == (mode, 0, 0)


def test_group_is_that_of_the_volume() -> None:
    """The group asked for is the files' group."""
    [spec] = file_specs(_reply(["a"], ["secret/a"]), group=2000)
    assert (spec.uid, spec.gid) == (0, 2000)


def test_content_is_not_printed() -> None:
    """Neither the reply nor the file shows bytes when printed."""
    reply = MountReply(
        files=(ReturnedFile(path="a", mode=0, content=b"canary"),),
        versions=(ObjectVersion("a", "1"),),
    )
    assert "canary" not in repr(reply) + repr(file_specs(reply, group=None))

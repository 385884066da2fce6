"""Input at the edges of what is allowed: shown as it is, and taken away without a trace."""

from __future__ import annotations

import json
import os
import random
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import pytest

from csi._pb import csi_pb2
from fakes.providersocket import mount_response
from harness.node import CALL_TIMEOUT_S
from harness.refusals import check_accepted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.kubelet import PodVolume
    from harness.node import Node

MEBIBYTE: Final = 1 << 20
SEED: Final = 7

CONTENTS: Final = [
    pytest.param({"empty": b""}, id="empty-secret"),
    pytest.param({"large": random.Random(SEED).randbytes(MEBIBYTE)}, id="one-mebibyte"),
    pytest.param({f"object-{n:03}": f"value {n}".encode() for n in range(500)}, id="500-objects"),
    pytest.param({"zeros": bytes(4096), "text": b"a\r\n\xff\0"}, id="any-bytes"),
    pytest.param({"n" * 255: b"long name"}, id="name-of-255-bytes"),
    pytest.param({"d/" * 100 + "f": b"deep", "d/e": b"beside"}, id="deep-directories"),
    pytest.param({"pässwörd ✓": b"1", " ": b"2", "a\nb": b"3"}, id="names-of-any-characters"),
    pytest.param({".hidden": b"1", "a..b": b"2", "dir/...": b"3"}, id="names-with-dots"),
]


def shown(target: Path) -> dict[str, bytes]:
    """Return the live files, as a walk of the pod finds them."""
    files = {}
    for folder, folders, names in os.walk(target):
        folders[:] = [name for name in folders if not name.startswith("..")]
        paths = [Path(folder, name) for name in names]
        files.update(
            {str(path.relative_to(target)): path.read_bytes() for path in paths if path.is_file()}
        )
    return files


@contextmanager
def published(node: Node, volume: PodVolume, **changes: object) -> Iterator[Path]:
    """Show a volume inside the block; afterwards nothing is left of it."""
    node.publish(volume, **changes)
    try:
        yield volume.target
    finally:
        node.unpublish(volume)
    volume.remove()


@pytest.mark.parametrize("files", CONTENTS)
def test_unusual_content_is_shown(
    node: Node, volume: PodVolume, files: Mapping[str, bytes]
) -> None:
    """Content at the edge is shown byte for byte, with its sizes, in both views."""
    node.provider.answer = lambda *_: mount_response(files)
    with published(node, volume) as target:
        assert shown(target) == files
        for path, content in files.items():
            assert (target / path).stat().st_size == len(content)
            assert (target / "..data" / path).read_bytes() == content


@pytest.mark.parametrize("mode", [0, 0o400, 0o644, 0o777, 0o107644])
def test_any_mode_is_cut_to_permissions(node: Node, volume: PodVolume, mode: int) -> None:
    """A file has the permission bits that the provider asked for, and no others."""
    node.provider.answer = lambda *_: mount_response({"password": b"x"}, mode=mode)
    with published(node, volume) as target:
        found = (target / "password").stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (mode & 0o777, 0, 0)


def test_group_is_set_and_modes_stay(node: Node, volume: PodVolume) -> None:
    """With fsGroup the files belong to the group, with the mode that was asked for."""
    node.provider.answer = lambda *_: mount_response({"dir/password": b"x"}, mode=0o440)
    mount = csi_pb2.VolumeCapability.MountVolume(volume_mount_group="2000")
    with published(node, volume, volume_capability={"mount": mount}) as target:
        found = (target / "dir/password").stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o440, 0, 2000)


def fill(directory: Path, outside: Path) -> None:
    """Put all kinds of things into a directory, some of which lead outside."""
    (outside / "folder").mkdir()
    (outside / "folder/file").write_text("outside")
    (outside / "survivor").write_text("outside")
    (directory / "old/deep/er").mkdir(parents=True)
    (directory / "old/deep/er/file").write_text("old")
    (directory / "old").chmod(0)
    (directory / ".hidden").write_text("old")
    (directory / "to-file").symlink_to(outside / "survivor")
    (directory / "to-folder").symlink_to(outside / "folder")
    (directory / "other-name").hardlink_to(directory / ".hidden")
    os.mkfifo(directory / "pipe")


def check_untouched(outside: Path) -> None:
    """Check that what the links of `fill` lead to is still there."""
    assert (outside / "survivor").read_text() == "outside"
    assert (outside / "folder/file").read_text() == "outside"


def test_full_plain_target_is_emptied(node: Node, volume: PodVolume, tmp_path: Path) -> None:
    """What lies in a plain target goes, links unfollowed; what they lead to survives."""
    fill(volume.target, tmp_path)
    with published(node, volume):
        assert shown(volume.target) == {"password": b"first"}
    check_untouched(tmp_path)


def test_full_plain_target_is_unpublished(node: Node, volume: PodVolume, tmp_path: Path) -> None:
    """An unpublish removes a plain target with all that lies in it, links unfollowed."""
    fill(volume.target, tmp_path)
    node.unpublish(volume)
    volume.remove()
    check_untouched(tmp_path)


def test_empty_plain_target_is_used(node: Node, volume: PodVolume) -> None:
    """A target that somebody made beforehand is used, and goes with the volume."""
    volume.target.mkdir()
    check_accepted(node, volume)


def test_unpublish_of_nothing_succeeds(node: Node, volume: PodVolume) -> None:
    """Unknown volume, absent target, plain empty target: an unpublish converges, twice."""
    node.unpublish(volume)
    volume.target.mkdir()
    node.unpublish(volume)
    assert not volume.target.exists()
    volume.remove()
    node.unpublish(volume)


def test_unpublish_touches_nothing_elsewhere(node: Node, tmp_path: Path) -> None:
    """A target outside kubelet's layout is none of ours: success, and it stays."""
    (tmp_path / "file").write_text("somebody's")
    for target in (tmp_path, tmp_path / "file", tmp_path / "missing"):
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id="v", target_path=str(target))
        node.calls.NodeUnpublishVolume(request, timeout=CALL_TIMEOUT_S)
    assert (tmp_path / "file").read_text() == "somebody's"


def test_unpublish_removes_link_and_file(node: Node, volume: PodVolume, tmp_path: Path) -> None:
    """A link or a file at the target goes; what the link leads to stays."""
    (tmp_path / "file").write_text("somebody's")
    volume.target.symlink_to(tmp_path)
    node.unpublish(volume)
    assert not volume.target.is_symlink()
    volume.target.write_text("in the way")
    node.unpublish(volume)
    volume.remove()
    assert (tmp_path / "file").read_text() == "somebody's"


def test_what_the_pod_brings_reaches_the_provider(node: Node, volume: PodVolume) -> None:
    """Attributes win over parameters, credentials travel apart, and neither is logged."""
    context = volume.context("app", objects="mine", keyvaultName="kv")
    with published(node, volume, volume_context=context, secrets={"clientsecret": "canary-77"}):
        request = node.provider.requests[-1]
    assert json.loads(request.attributes) == context
    assert json.loads(request.secrets) == {"clientsecret": "canary-77"}
    assert request.target_path == str(volume.target)
    assert "canary-77" not in node.server.log + node.keeper.log


def test_repeated_publish_changes_nothing(node: Node, volume: PodVolume) -> None:
    """A republish succeeds even while the provider fails, and the content stays."""
    with published(node, volume) as target:
        mounts = node.kubelet.mounts()
        node.provider.answer = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, "down")
        node.publish(volume)
        assert node.kubelet.mounts() == mounts
        assert (target / "password").read_bytes() == b"first"

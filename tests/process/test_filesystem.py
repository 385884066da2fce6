"""The file system of a volume, from the class to the target, through a whole node."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from fakes.providersocket import mount_response
from harness.node import CLASS, Node, running_node
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.kubelet import PodVolume


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Run a node that refreshes its volumes often."""
    flags = ["--enable-secret-rotation", "--rotation-poll-interval=300ms"]
    with running_node(tmp_path_factory.mktemp("akvfs"), server_flags=flags) as running:
        yield running


def put(node: Node, filesystem: str) -> None:
    """Let the class ask for a file system."""
    node.write_class(CLASS, parameters={"objects": "any", "akvfs/filesystem": filesystem})


def mounted(node: Node, volume: PodVolume) -> list[tuple[str, str]]:
    """Return type and source of what is mounted on a target."""
    return [
        (mount.filesystem, mount.source)
        for mount in node.kubelet.mounts()
        if mount.target == str(volume.target)
    ]


def test_class_has_its_volumes_on_a_tmpfs(node: Node) -> None:
    """The class decides; the same option of a pod is not read."""
    plain, fixed = node.volume(), node.volume()
    node.publish(plain, volume_context=plain.context(CLASS, **{"akvfs/filesystem": "tmpfs"}))
    put(node, "tmpfs")
    node.publish(fixed)
    assert mounted(node, plain) == [("fuse.akvfs", "akvfs")]
    assert mounted(node, fixed) == [("tmpfs", "akvfs")]
    for volume in (plain, fixed):
        assert (volume.target / "password").read_bytes() == b"first"
        node.unpublish(volume)
        assert not volume.target.exists()


def test_tmpfs_is_rotated_across_a_keeper(node: Node) -> None:
    """New content comes in, also after the keeper was killed; the pod's mount stays all along."""
    put(node, "tmpfs")
    volume = node.volume()
    node.publish(volume)
    before = node.kubelet.mounts()
    for number, content in enumerate((b"second", b"third")):
        if number:
            node.keeper.kill()
            assert (volume.target / "password").read_bytes() == b"second"
            node.keeper.restart()
        node.provider.answer = lambda *_, found=content: mount_response(
            {"password": found}, version=found.decode()
        )
        eventually(
            lambda found=content: (volume.target / "password").read_bytes() == found,  # type: ignore[misc]
            "the new content is shown",
        )
        assert node.kubelet.mounts() == before
    node.unpublish(volume)
    assert not node.kubelet.mounts()


def test_volume_of_the_reference_goes_on(node: Node) -> None:
    """A republish of a pod that the reference driver served updates its tmpfs in place."""
    volume = node.volume()
    volume.target.mkdir(mode=0o750)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", volume.target], check=True, timeout=10)
    stamped = volume.target / "..2026_01_31_12_00_00.123456789"
    stamped.mkdir()
    (stamped / "password").write_bytes(b"old")
    (volume.target / "..data").symlink_to(stamped.name)
    (volume.target / "password").symlink_to("..data/password")
    node.publish(volume)
    assert mounted(node, volume) == [("tmpfs", "tmpfs")]
    assert (volume.target / "password").read_bytes() == b"first"
    assert "its target held a tmpfs already" in node.server.log
    node.unpublish(volume)
    assert mounted(node, volume) == []
    assert not volume.target.exists()


def test_flag_has_the_last_word(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With --filesystem=fuse a class cannot have a tmpfs, and is told so."""
    directory = tmp_path_factory.mktemp("akvfs")
    with running_node(directory, server_flags=["--filesystem=fuse"]) as node:
        put(node, "tmpfs")
        volume = node.volume()
        node.publish(volume)
        assert mounted(node, volume) == [("fuse.akvfs", "akvfs")]
        assert "--filesystem=fuse does not allow" in node.server.log
        node.unpublish(volume)

"""Volumes of pods with a user namespace of their own, mounted there as a runtime does it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from fusefs.backup import Backups
from fusefs.client import connect
from fusefs.published import VolumeOptions
from fusefs.snapshot import FileSpec
from harness.usernamespace import FIRST_UID, user_namespace
from harness.volumes import PublishedVolume

if TYPE_CHECKING:
    from pathlib import Path

    from fusefs.client import KeeperClient
    from harness.kubelet import KubeletRoot
    from harness.programs import Program
    from harness.usernamespace import UserNamespace

OPTIONS: Final = VolumeOptions(filesystem="fuse", user_namespace=True)
LOOK: Final = ("sh", "-c", "cat a b && stat -c ' %u:%g' a b")


def files(text: str) -> list[FileSpec]:
    """Return a file that only root may read, and one of the group 2000."""
    return [
        FileSpec(path="a", content=text.encode(), mode=0o400),
        FileSpec(path="b", content=text.encode(), mode=0o440, uid=7, gid=2000),
    ]


def test_mapped_ids_are_those_of_the_pod() -> None:
    """What the tests call a user namespace has the pod's root at an id of its own."""
    with user_namespace() as namespace:
        run = subprocess.run(
            namespace.command(["cat", "/proc/self/uid_map"]), capture_output=True, check=True
        )
    assert run.stdout.split() == [b"0", b"%d" % FIRST_UID, b"65536"]


def look(namespace: UserNamespace, mounted: Path, uid: int = 0) -> list[str]:
    """Return content and ids of both files, as a user of the namespace sees them."""
    command = namespace.command(LOOK, uid=uid)
    run = subprocess.run(command, cwd=mounted, capture_output=True, timeout=10, check=False)
    return run.stdout.decode().split()


async def test_pod_in_user_namespace_reads(
    client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path
) -> None:
    """Owner, group and mode are those of the pod's own ids, before and after a rotation."""
    volume = PublishedVolume(client, kubelet.prepared(), options=OPTIONS)
    await volume.publish(files("one"))
    try:
        with (
            user_namespace() as namespace,
            namespace.mapped(volume.target, tmp_path / "pod") as mounted,
        ):
            assert look(namespace, mounted) == ["oneone", "0:0", "7:2000"]
            assert look(namespace, mounted, uid=7) == ["one"]
            await volume.rotate(files("two"))
            assert look(namespace, mounted) == ["twotwo", "0:0", "7:2000"]
            assert (mounted / "b").stat().st_uid == FIRST_UID + 7
    finally:
        await volume.unpublish()
        volume.close()


async def test_mapped_ids_outlive_worker_and_keeper(
    keeper: Program, keeper_socket: Path, kubelet: KubeletRoot, tmp_path: Path
) -> None:
    """Whoever serves the volume next negotiates the same, though only the first reply says it."""
    with contextlib.closing(Backups()) as backups, contextlib.ExitStack() as pod:
        async with connect(str(keeper_socket), backups=backups) as client:
            volume = PublishedVolume(client, kubelet.prepared(), options=OPTIONS)
            await volume.publish(files("one"))
            namespace = pod.enter_context(user_namespace())
            mounted = pod.enter_context(namespace.mapped(volume.target, tmp_path / "pod"))
            pid = await volume.worker_pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert look(namespace, mounted) == ["oneone", "0:0", "7:2000"]
            keeper.kill()
        keeper_socket.unlink()
        keeper.restart()
        keeper.wait_until(keeper_socket.exists, "the control socket is there again")
        async with connect(str(keeper_socket), backups=backups) as client:
            volume.client = client
            await volume.rotate(files("two"))
            assert look(namespace, mounted) == ["twotwo", "0:0", "7:2000"]
            await volume.unpublish()
            volume.close()


async def test_other_volumes_map_no_ids(published: PublishedVolume, tmp_path: Path) -> None:
    """Where no pod asked for it, the kernel refuses to map ids: requests go on carrying them."""
    with (
        user_namespace() as namespace,
        pytest.raises(OSError, match="Invalid argument"),
        namespace.mapped(published.target, tmp_path / "pod"),
    ):
        pass

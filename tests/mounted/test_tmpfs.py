"""Volumes on a tmpfs: new ones, found ones, those of the reference driver, and what is not ours."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from fusefs import syscalls
from fusefs.client import KeeperClient, connect
from fusefs.config import KEEPER_BYTES
from fusefs.errors import TargetRefused
from fusefs.filesystems import WORKER_BYTES
from fusefs.published import VolumeOptions
from fusefs.snapshot import FileSpec
from harness import referencevolume
from harness.keepers import Keepers, serves
from harness.nodeservers import NodeServer
from harness.volumes import LIVE_FILES, PublishedVolume, content, specs

if TYPE_CHECKING:
    from fusefs.protocol import WantedFilesystem
    from harness.kubelet import KubeletRoot
    from harness.programs import Program

TMPFS: Final = VolumeOptions(filesystem="tmpfs")


def prepared(client: KeeperClient, kubelet: KubeletRoot) -> PublishedVolume:
    """Return a volume that kubelet has prepared, to be published as a tmpfs."""
    return PublishedVolume(client, kubelet.prepared(), options=TMPFS)


def mount(target: Path, source: str = "tmpfs", filesystem: str = "tmpfs") -> None:
    """Mount a file system as the reference driver does: without options."""
    target.mkdir(mode=0o750, exist_ok=True)
    subprocess.run(["mount", "-t", filesystem, source, target], check=True, timeout=10)


def write_as_the_reference(target: Path, files: dict[str, bytes]) -> None:
    """Mount and fill a volume as the reference driver leaves it on the node."""
    mount(target)
    referencevolume.fill(target, files)


def shrink(target: Path) -> None:
    """Leave a tmpfs little more room than the standard files take."""
    descriptor = os.open(target, os.O_PATH)
    context = syscalls.fspick(descriptor)
    syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "size", "64k")
    syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_RECONFIGURE)
    os.close(context)
    os.close(descriptor)


def read(target: Path) -> dict[str, bytes]:
    """Return every file that a walk of the top level finds."""
    found = {}
    for folder, _, names in os.walk(target, followlinks=True):
        below = Path(folder).relative_to(target)
        if not str(below).startswith(".."):
            found.update({str(below / name): Path(folder, name).read_bytes() for name in names})
    return found


def expected(generation: int) -> dict[str, bytes]:
    """Return the standard files of a generation."""
    return {path: content(path, generation) for path in LIVE_FILES}


async def test_tmpfs_volume_is_mounted_read_only(
    client: KeeperClient, kubelet: KubeletRoot
) -> None:
    """One mount with our source that never swaps; nobody writes to it, not even root."""
    volume = prepared(client, kubelet)
    shown = await volume.publish()
    assert (shown.filesystem, shown.reason, shown.restart) == ("tmpfs", "", ())
    (found,) = kubelet.mounts()
    assert (found.filesystem, found.source) == ("tmpfs", "akvfs")
    assert {"ro", "nosuid", "nodev"} <= found.options
    assert "noswap" in found.super_options
    with pytest.raises(OSError, match="Read-only") as caught:
        (volume.target / "user").write_bytes(b"x")
    assert caught.value.errno == errno.EROFS
    assert read(volume.target) == expected(1)
    (listed,) = await client.volumes(snapshots=False)
    assert (listed.filesystem, listed.worker_pid) == ("tmpfs", None)
    await volume.unpublish()
    volume.close()


async def test_files_have_their_owners_and_modes(
    client: KeeperClient, kubelet: KubeletRoot
) -> None:
    """Files belong to root and the pod's group, with the mode of their object."""
    volume = prepared(client, kubelet)
    await volume.publish([FileSpec(path="a/b", content=b"x", mode=0o440, gid=2000)])
    found = {path: os.lstat(volume.target / path) for path in ("", "..data", "a", "a/b")}
    owners = {path: (one.st_uid, one.st_gid) for path, one in found.items()}
    assert owners == {"": (0, 2000), "..data": (0, 0), "a": (0, 0), "a/b": (0, 2000)}
    assert stat.S_IMODE(found["a/b"].st_mode) == 0o440
    assert stat.S_IMODE(found[""].st_mode) == 0o755
    await volume.unpublish()
    volume.close()


async def test_rotation_swings_the_data_link(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """New content appears under every name at once; what is open stays what it was."""
    volume = prepared(client, kubelet)
    await volume.publish()
    first = os.readlink(volume.target / "..data")
    with (volume.target / "user").open("rb", buffering=0) as held:
        await volume.rotate()
        assert held.read() == content("user", 1)
    assert os.readlink(volume.target / "..data") != first
    assert not (volume.target / first).exists()
    await volume.rotate([FileSpec(path="other", content=b"new")])
    assert read(volume.target) == {"other": b"new"}
    assert len(kubelet.mounts()) == 1
    await volume.unpublish()
    assert not kubelet.mounts()
    assert not volume.target.exists()
    volume.close()


async def test_oversized_generation_is_refused(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """What does not fit is an error of its rotation; the volume goes on with what it shows."""
    volume = prepared(client, kubelet)
    await volume.publish()
    shrink(volume.target)
    with pytest.raises(Exception, match="cannot be served"):
        await volume.rotate([FileSpec(path="big", content=bytes(1 << 20))])
    assert read(volume.target) == expected(1)
    await volume.rotate([FileSpec(path="small", content=b"x")])
    assert read(volume.target) == {"small": b"x"}
    await volume.unpublish()
    volume.close()


@pytest.mark.parametrize("wanted", ["auto", "fuse", "tmpfs"])
async def test_volume_of_the_reference_is_adopted(
    client: KeeperClient, kubelet: KubeletRoot, wanted: WantedFilesystem
) -> None:
    """A pod's tmpfs is updated in place, whatever is asked for, and unmounted in the end."""
    pod_volume = kubelet.prepared()
    write_as_the_reference(pod_volume.target, {"user": b"old", "gone/x": b"old"})
    before = kubelet.mounts()
    options = VolumeOptions(filesystem=wanted)
    volume = PublishedVolume(client, pod_volume, options=options)
    descriptor = os.open(pod_volume.target, os.O_RDONLY)  # as a container holds it
    shown = await volume.publish()
    assert shown.filesystem == "tmpfs"
    assert "its target held a tmpfs already" in shown.reason
    assert kubelet.mounts() == before
    assert read(volume.target) == expected(1)
    await volume.rotate()
    assert Path(f"/proc/self/fd/{descriptor}/user").read_bytes() == content("user", 2)
    os.close(descriptor)
    await volume.unpublish()
    assert not kubelet.mounts()
    assert not volume.target.exists()
    volume.close()


async def test_same_content_of_the_reference_stays(
    client: KeeperClient, kubelet: KubeletRoot
) -> None:
    """Adoption alone changes nothing that a pod could notice."""
    volume = prepared(client, kubelet)
    write_as_the_reference(volume.target, expected(1))
    await volume.publish()
    assert os.readlink(volume.target / "..data") == referencevolume.STAMP
    await volume.unpublish()
    volume.close()


async def test_unpublish_takes_the_volume_of_the_reference(
    client: KeeperClient, kubelet: KubeletRoot
) -> None:
    """A tmpfs that was never published here goes with everything stacked on it."""
    volume = prepared(client, kubelet)
    for number in range(3):
        mount(volume.target)
        (volume.target / f"{number}").touch()
    await volume.unpublish()
    assert not kubelet.mounts()
    assert not volume.target.exists()


async def test_stacked_volumes_come_off_one_by_one(
    client: KeeperClient, kubelet: KubeletRoot
) -> None:
    """The uppermost tmpfs is adopted, and the unpublish takes all of them."""
    volume = prepared(client, kubelet)
    write_as_the_reference(volume.target, {"user": b"lower"})
    write_as_the_reference(volume.target, {"user": b"upper"})
    await volume.publish()
    assert read(volume.target) == expected(1)
    assert len(kubelet.mounts()) == 2
    await volume.unpublish()
    assert not kubelet.mounts()
    volume.close()


@pytest.mark.parametrize(
    ("source", "filesystem"), [("theirs", "tmpfs"), ("none", "ramfs"), ("tmpfs", "ramfs")]
)
async def test_foreign_mount_on_a_volume_is_refused(
    client: KeeperClient, kubelet: KubeletRoot, source: str, filesystem: str
) -> None:
    """What is neither ours nor the reference driver's is neither covered nor unmounted."""
    volume = prepared(client, kubelet)
    write_as_the_reference(volume.target, {"user": b"lower"})
    mount(volume.target, source, filesystem)
    before = kubelet.mounts()
    with pytest.raises(TargetRefused, match="not ours"):
        await volume.publish()
    with pytest.raises(TargetRefused, match="not ours"):
        await volume.unpublish()
    assert kubelet.mounts() == before


async def test_tmpfs_of_another_driver_stays(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """Without kubelet's word that the volume is ours, a tmpfs is not touched."""
    pod_volume = kubelet.volume()
    pod_volume.prepare(driverName="other.csi")
    write_as_the_reference(pod_volume.target, {"user": b"theirs"})
    volume = PublishedVolume(client, pod_volume, options=TMPFS)
    for ask in (volume.publish, volume.unpublish):
        with pytest.raises(TargetRefused, match=r"vol_data\.json"):
            await ask()
    assert read(volume.target) == {"user": b"theirs"}


async def test_refused_adoption_leaves_the_pod_its_files(
    client: KeeperClient, kubelet: KubeletRoot
) -> None:
    """Content that cannot be written does not take the old content away."""
    volume = prepared(client, kubelet)
    write_as_the_reference(volume.target, {"user": b"old"})
    shrink(volume.target)
    with pytest.raises(Exception, match="cannot be shown"):
        await volume.publish([FileSpec(path="user", content=bytes(1 << 20))])
    assert read(volume.target) == {"user": b"old"}
    assert not await client.volumes()
    await volume.publish()
    assert read(volume.target) == expected(1)
    await volume.unpublish()
    volume.close()


async def test_volume_outlives_its_keeper(
    client: KeeperClient, keeper: Program, keeper_socket: Path, kubelet: KubeletRoot
) -> None:
    """The tmpfs is read while no keeper runs, and goes on with the next publish."""
    volume = prepared(client, kubelet)
    await volume.publish()
    before = (os.readlink(volume.target / "..data"), kubelet.mounts())
    keeper.kill()
    assert read(volume.target) == expected(1)
    keeper_socket.unlink()
    keeper.restart()
    keeper.wait_until(keeper_socket.exists, "the control socket is there again")
    async with connect(str(keeper_socket)) as again:
        assert not await again.volumes()
        volume.client = again
        volume.close()
        await volume.publish()
        assert (os.readlink(volume.target / "..data"), kubelet.mounts()) == before
        await volume.rotate()
        assert read(volume.target) == expected(2)
        await volume.unpublish()
        assert not kubelet.mounts()
        volume.close()


async def test_volume_goes_on_in_a_successor(tmp_path: Path, kubelet: KubeletRoot) -> None:
    """A keeper that takes over finds the tmpfs when it is published again; the mount stays."""
    keepers = Keepers(tmp_path, kubelet)
    with keepers.ending():
        first = keepers.start()
        first.wait_until(lambda: serves(first), "it serves")
        async with NodeServer.running(keepers.socket) as node:
            before = await node.client()
            volume = PublishedVolume(before, kubelet.prepared(), options=TMPFS)
            await volume.publish()
            mounts = kubelet.mounts()
            second = keepers.start()
            volume.client = await node.next_client(before)
            assert volume.client.keeper_pid == second.pid
            assert not await volume.client.volumes(snapshots=False)
            assert read(volume.target) == expected(1)
            volume.close()
            await volume.publish()
            await volume.rotate()
            assert read(volume.target) == expected(2)
            assert kubelet.mounts() == mounts
            volume.close()


async def test_frozen_keeper_leaves_the_volume(
    client: KeeperClient, keeper: Program, kubelet: KubeletRoot
) -> None:
    """A keeper that ends for good has nothing to freeze: the kernel keeps the tmpfs."""
    volume = prepared(client, kubelet)
    await volume.publish()
    mounts = kubelet.mounts()
    os.kill(keeper.pid, signal.SIGUSR1)
    with trio.fail_after(10):
        while not keeper.ended():
            await trio.sleep(0.01)
    assert read(volume.target) == expected(1)
    assert kubelet.mounts() == mounts
    volume.close()


async def test_unmounted_tmpfs_is_shown_again(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """A repeated publish puts the tmpfs back where somebody took it away."""
    volume = prepared(client, kubelet)
    await volume.publish()
    subprocess.run(["umount", volume.target], check=True, timeout=10)
    again = PublishedVolume(client, volume.volume, options=TMPFS)
    await again.publish()
    again.close()
    assert read(volume.target) == expected(1)
    assert len(kubelet.mounts()) == 1
    await volume.unpublish()
    volume.close()


async def test_walks_never_miss_a_generation(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """Through a descriptor of ``..data`` a pod sees one generation, whole, during rotations."""
    volume = prepared(client, kubelet)
    await volume.publish()
    deadline = time.monotonic() + 20
    for number in range(2, 12):
        data = os.open(volume.target / "..data", os.O_RDONLY | os.O_DIRECTORY)
        files = {path: Path(f"/proc/self/fd/{data}/{path}").read_bytes() for path in LIVE_FILES}
        os.close(data)
        assert files == expected(number - 1)
        await volume.rotate(specs(number))
        assert time.monotonic() < deadline
    await volume.unpublish()
    volume.close()


# Where FUSE cannot be had


class TestOldKernel:
    """A keeper that insists on what its kernel does not have."""

    @pytest.fixture
    def keeper_command(self, kubelet: KubeletRoot, keeper_socket: Path) -> list[str]:
        """Run that keeper."""
        return ["harness.oldkernel", str(keeper_socket), str(kubelet.path), "resend"]

    async def test_kernel_without_fuse_gives_a_tmpfs(
        self, client: KeeperClient, kubelet: KubeletRoot
    ) -> None:
        """A volume that may be either is a tmpfs with the reason; the trial leaves nothing."""
        volume = PublishedVolume(client, kubelet.prepared())
        shown = await volume.publish()
        assert shown.filesystem == "tmpfs"
        assert "this kernel does not offer" in shown.reason
        (listed,) = await client.volumes(snapshots=False)
        assert (listed.filesystem, listed.reason) == (shown.filesystem, shown.reason)
        assert [mount.filesystem for mount in kubelet.mounts()] == ["tmpfs"]
        await volume.rotate()
        assert read(volume.target) == expected(2)
        await volume.unpublish()
        volume.close()


class TestSmallBudget:
    """A keeper that has memory for one FUSE volume."""

    @pytest.fixture
    def keeper_command(self, kubelet: KubeletRoot, keeper_socket: Path) -> list[str]:
        """Run that keeper."""
        limit = KEEPER_BYTES + WORKER_BYTES * 3 // 2
        return [
            "fusefs",
            f"--socket={keeper_socket}",
            f"--kubelet-root={kubelet.path}",
            f"--memory-limit={limit}",
        ]

    async def test_spent_budget_gives_a_tmpfs(
        self, client: KeeperClient, kubelet: KubeletRoot
    ) -> None:
        """Past the budget volumes that may are a tmpfs; what is freed is given again."""
        first, second = (PublishedVolume(client, kubelet.prepared()) for _ in range(2))
        assert (await first.publish()).filesystem == "fuse"
        shown = await second.publish()
        assert shown.filesystem == "tmpfs"
        assert "--memory-limit" in shown.reason
        for volume in (first, second):
            await volume.unpublish()
            volume.close()
        assert (await second.publish()).filesystem == "fuse"
        await second.unpublish()
        second.close()

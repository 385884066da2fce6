"""Publish, refusal and teardown: what is left on the node after each."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from fusefs.client import KeeperClient, connect
from fusefs.errors import (
    InvalidMessage,
    KeeperUnavailable,
    Superseded,
    TargetRefused,
    VolumeUnknown,
)
from fusefs.snapshot import FileSpec
from harness.volumes import PublishedVolume, content, specs

if TYPE_CHECKING:
    from harness.kubelet import KubeletRoot
    from harness.programs import Program


def prepared(client: KeeperClient, kubelet: KubeletRoot) -> PublishedVolume:
    """Return a volume that kubelet has prepared."""
    pod_volume = kubelet.volume()
    pod_volume.prepare()
    return PublishedVolume(client, pod_volume)


async def test_publish_is_idempotent(published: PublishedVolume, kubelet: KubeletRoot) -> None:
    """Publishing again at the same target leaves one mount with its content."""
    again = PublishedVolume(published.client, published.volume)
    await again.publish(specs(7))
    again.close()
    assert len(kubelet.mounts()) == 1
    assert (published.target / "user").read_bytes() == content("user", 1)


async def test_unpublish_leaves_nothing(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """Mount, directory and worker are gone; unpublishing again, or the unknown, is fine."""
    volume = prepared(client, kubelet)
    await volume.publish()
    pid = await volume.worker_pid()
    await volume.unpublish()
    assert not kubelet.mounts()
    assert not volume.target.exists()
    assert not await client.volumes()
    with trio.fail_after(5):
        while os.path.exists(f"/proc/{pid}"):
            await trio.sleep(0.01)
    await volume.unpublish()
    await client.unpublish("unknown", str(kubelet.volume().target))
    volume.close()


async def test_busy_volume_is_unpublished(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """Open files and working directories do not keep a volume from going; readers get an error."""
    volume = prepared(client, kubelet)
    await volume.publish()
    with (volume.target / "user").open("rb", buffering=0) as held:
        directory = os.open(volume.target / "..data", os.O_RDONLY)
        await volume.unpublish()
        with pytest.raises(OSError, match=r"not connected|abort"):
            held.read(1)
        os.close(directory)
    assert not kubelet.mounts()
    volume.close()


async def test_stopped_worker_is_unpublished(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """A worker that does not answer, with a reader waiting for it, does not stop an unpublish."""
    volume = prepared(client, kubelet)
    await volume.publish()
    pid = await volume.worker_pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    async with trio.open_nursery() as nursery:
        outcome: list[OSError] = []

        def read() -> None:
            try:
                (volume.target / "user").read_bytes()
            except OSError as error:
                outcome.append(error)

        nursery.start_soon(trio.to_thread.run_sync, read)
        with trio.fail_after(5):
            await volume.unpublish()
    assert len(outcome) == 1
    assert not kubelet.mounts()
    volume.close()


async def test_empty_volume_is_served(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """A volume without files comes up, and gets its first file by a rotation."""
    volume = prepared(client, kubelet)
    await volume.publish([])
    assert sorted(os.listdir(volume.target)) == ["..1", "..data"]
    assert not os.listdir(volume.target / "..data")
    await volume.rotate([FileSpec(path="late", content=b"")])
    assert (volume.target / "late").read_bytes() == b""
    await volume.unpublish()
    volume.close()


async def test_priming_file_is_never_seen(published: PublishedVolume) -> None:
    """The hidden file that primes a mount is gone when the target shows the volume."""
    with pytest.raises(FileNotFoundError):
        (published.target / "..prime").stat()


@pytest.mark.parametrize("takeover", ["auto", "journal"])
async def test_large_and_many_files_are_served(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """A file of 1 MiB and 500 objects read back exactly."""
    volume = prepared(client, kubelet)
    big = os.urandom(1 << 20)
    many = [FileSpec(path=f"many/{number}", content=b"%d" % number) for number in range(500)]
    await volume.publish([FileSpec(path="big", content=big), *many])
    assert (volume.target / "big").read_bytes() == big
    assert len(os.listdir(volume.target / "many")) == 500
    assert all((volume.target / spec.path).read_bytes() == spec.content for spec in many)
    await volume.unpublish()
    volume.close()


async def test_plain_directory_is_emptied(
    client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path
) -> None:
    """What a plain target directory held is removed, and no link in it is followed."""
    outside = tmp_path / "outside"
    outside.write_text("kept", encoding="utf-8")
    volume = prepared(client, kubelet)
    (volume.target / "sub/deep").mkdir(parents=True)
    (volume.target / "sub/deep/file").write_text("old", encoding="utf-8")
    (volume.target / "link").symlink_to(outside)
    await volume.publish()
    await volume.unpublish()
    assert outside.read_text(encoding="utf-8") == "kept"
    assert not volume.target.exists()
    volume.close()


@pytest.mark.parametrize("kind", ["file", "link", "foreign"])
async def test_target_that_is_not_ours_is_refused(
    client: KeeperClient, kubelet: KubeletRoot, kind: str, tmp_path: Path
) -> None:
    """A file, a link or a foreign mount at the target is refused by name and left alone."""
    volume = prepared(client, kubelet)
    if kind == "file":
        volume.target.write_text("x", encoding="utf-8")
    elif kind == "link":
        volume.target.symlink_to(tmp_path)
    else:
        volume.target.mkdir()
        await trio.run_process(["mount", "-t", "tmpfs", "theirs", str(volume.target)])
    with pytest.raises(TargetRefused, match=str(volume.target)):
        await volume.publish()
    assert not await client.volumes()
    if kind == "foreign":
        assert [mount.source for mount in kubelet.mounts()] == ["theirs"]
        await trio.run_process(["umount", str(volume.target)])
    else:
        assert os.path.lexists(volume.target)


async def test_volume_data_of_another_is_refused(
    client: KeeperClient, kubelet: KubeletRoot
) -> None:
    """A directory that kubelet prepared for another driver or volume is not mounted on."""
    pod_volume = kubelet.volume()
    pod_volume.prepare(driverName="other.csi")
    volume = PublishedVolume(client, pod_volume)
    with pytest.raises(TargetRefused, match=r"vol_data\.json"):
        await volume.publish()
    assert not volume.target.exists()


async def test_older_session_is_not_obeyed(published: PublishedVolume, keeper_socket: Path) -> None:
    """Once a newer node server has registered, the older one is told so."""
    async with connect(str(keeper_socket)) as newer:
        with pytest.raises(Superseded):
            await published.rotate()
        assert len(await newer.volumes(snapshots=False)) == 1
    with pytest.raises(Superseded):
        await published.unpublish()


async def test_new_session_resumes_from_records(
    published: PublishedVolume, keeper_socket: Path
) -> None:
    """A new node server gets record, generation and content of every volume, and can rotate."""
    await published.client.update_record(published.volume.volume_id, b"newest")
    async with connect(str(keeper_socket)) as successor:
        (found,) = await successor.volumes()
        assert (found.record, found.generation) == (b"newest", 1)
        assert found.snapshot is not None
        assert found.snapshot.content("user") == content("user", 1)
        found.snapshot.close()
        published.client = successor
        await published.rotate()
        assert (published.target / "user").read_bytes() == content("user", 2)


async def test_unknown_volume_is_named(client: KeeperClient) -> None:
    """A rotation or record for a volume that is not published names it."""
    with pytest.raises(VolumeUnknown, match="nobody"):
        await client.update_record("nobody", b"")


async def test_unsealed_content_is_refused(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """A descriptor that is not sealed is refused before anything is mounted."""
    volume = prepared(client, kubelet)
    sealed = volume.seal(specs(1))
    plain = os.memfd_create("plain")
    os.write(plain, b"x" * 100)
    os.dup2(plain, sealed.snapshot.fd)
    os.close(plain)
    with pytest.raises(InvalidMessage, match="seal"):
        await client.publish(volume.volume.volume_id, str(volume.target), sealed, record=b"")
    sealed.snapshot.close()
    assert not kubelet.mounts()


async def test_garbage_closes_only_its_session(
    published: PublishedVolume, keeper_socket: Path
) -> None:
    """A peer that does not speak the protocol loses its connection; the volume does not notice."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as rude:
        rude.settimeout(5)
        rude.connect(str(keeper_socket))
        rude.send(b"nonsense")
        assert rude.recv(1) == b""
    await published.rotate()


async def test_dead_keeper_leaves_a_dead_mount_to_repair(
    published: PublishedVolume, keeper: Program, keeper_socket: Path, kubelet: KubeletRoot
) -> None:
    """After the keeper's death the next publish detaches the dead mount and mounts anew."""
    keeper.kill()
    with pytest.raises(KeeperUnavailable):
        await published.rotate()
    assert len(kubelet.mounts()) == 1
    keeper_socket.unlink()
    keeper.restart()
    keeper.wait_until(keeper_socket.exists, "the control socket is there again")
    async with connect(str(keeper_socket)) as client:
        published.client = client
        published.close()
        await published.publish()
        assert len(kubelet.mounts()) == 1
        assert (published.target / "user").read_bytes() == content("user", 1)


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
async def test_unpublish_removes_what_is_in_the_way(
    client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path, kind: str
) -> None:
    """A file, a link or a directory with content at the target goes; what a link names stays."""
    outside = tmp_path / "outside"
    outside.write_text("kept", encoding="utf-8")
    volume = prepared(client, kubelet)
    if kind == "file":
        volume.target.write_text("x", encoding="utf-8")
    elif kind == "link":
        volume.target.symlink_to(outside)
    else:
        (volume.target / "sub").mkdir(parents=True)
        (volume.target / "sub/link").symlink_to(outside)
    await volume.unpublish()
    assert not os.path.lexists(volume.target)
    assert outside.read_text(encoding="utf-8") == "kept"


async def test_private_mounts_stay_private(tmp_path: Path) -> None:
    """Where even `/` is shared, as on most hosts, the host sees targets and nothing else."""
    script = Path(__file__).parents[1] / "harness" / "sharedroot.sh"
    run = await trio.run_process(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            str(script),
            sys.executable,
            str(tmp_path),
        ],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout.decode().split() == ["before:", "0", "serving:", "0", "after:", "0"]

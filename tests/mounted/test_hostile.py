"""Hostile or unlucky surroundings: names, versions, unmounts, and what pods do with files."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from fusefs.client import connect
from fusefs.errors import InvalidMessage, TargetRefused
from fusefs.memory import sealed_memfd
from fusefs.plan import Plan
from fusefs.snapshot import FileSpec, Sealed
from harness.inotify import Event, Watcher
from harness.programs import Program
from harness.volumes import PublishedVolume, bind_file, content, snapshots_held, specs

if TYPE_CHECKING:
    from pathlib import Path

    from harness.kubelet import KubeletRoot


@pytest.mark.parametrize("mark", ["\u2028", "\x0b", "\x85", " ", "\\", "\n", "\t"])
async def test_mount_names_of_pods_do_no_harm(
    published: PublishedVolume, tmp_path: Path, mark: str
) -> None:
    """A mount of a pod whose name holds whatever ends a line somewhere stops nothing."""
    odd = tmp_path / f"a{mark}b"
    odd.touch()
    with bind_file(odd, tmp_path / f"c{mark}d"):
        await published.unpublish()
    assert not published.target.exists()


async def test_unreadable_generation_is_rejected(published: PublishedVolume) -> None:
    """A snapshot of another layout is refused; the volume serves on and takes the next one."""
    broken = published.seal(specs(2))
    foreign = sealed_memfd("foreign", [b"another layout, sealed and all"])
    os.dup2(foreign, broken.snapshot.fd)
    os.close(foreign)
    with pytest.raises(InvalidMessage, match="generation 2 cannot be served"):
        await published.client.rotate(published.volume.volume_id, broken, record=b"")
    broken.snapshot.close()
    pid = await published.worker_pid()
    assert (published.target / "user").read_bytes() == content("user", 1)
    assert await published.rotate() == 2
    assert (published.target / "user").read_bytes() == content("user", 2)
    assert await published.worker_pid() == pid


async def test_plan_of_another_version_is_rejected(published: PublishedVolume) -> None:
    """A plan that does not fit its snapshot is refused too, also across a worker's death."""
    good = published.seal(specs(2))
    odd = Sealed(snapshot=good.snapshot, plan=Plan(2, 1, changed=("nobody",)).encode())
    for plan in (odd.plan, b"\xc1"):
        sealed = Sealed(snapshot=good.snapshot, plan=plan)
        pid = await published.worker_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(InvalidMessage, match="cannot be served"):
            await published.client.rotate(published.volume.volume_id, sealed, record=b"")
    good.snapshot.close()
    assert await published.rotate() == 2


async def test_written_content_is_never_shown(
    published: PublishedVolume, kubelet: KubeletRoot
) -> None:
    """Who holds a snapshot can write to secret memory; no later worker shows what was written."""
    assert published.snapshot is not None
    with mmap.mmap(published.snapshot.fd, published.snapshot.size) as content:
        content[-1:] = b"!"
    pid = await published.worker_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with trio.fail_after(10):
        while await published.client.volumes(snapshots=False):
            await trio.sleep(0.01)
    with pytest.raises(OSError, match="not connected"):
        (published.target / "user").read_bytes()
    published.close()
    await published.publish()
    assert (published.target / "user").read_bytes() == specs(1)[0].content
    assert len(kubelet.mounts()) == 1


async def test_unmounted_target_is_mounted_again(
    published: PublishedVolume, kubelet: KubeletRoot
) -> None:
    """A publish of a volume whose target somebody unmounted shows it again."""
    await trio.run_process(["umount", "--lazy", str(published.target)])
    assert not kubelet.mounts()
    again = PublishedVolume(published.client, published.volume)
    await again.publish()
    again.close()
    assert len(kubelet.mounts()) == 1
    assert (published.target / "user").read_bytes() == content("user", 1)


async def test_target_of_another_volume_is_left_alone(
    published: PublishedVolume, kubelet: KubeletRoot
) -> None:
    """An unpublish that names another volume's target, or no volume's content, is refused."""
    with pytest.raises(TargetRefused, match="another volume"):
        await published.client.unpublish("unknown", str(published.target))
    assert (published.target / "user").read_bytes() == content("user", 1)
    foreign = kubelet.volume()
    foreign.prepare(driverName="other.csi")
    foreign.target.mkdir()
    (foreign.target / "theirs").touch()
    with pytest.raises(TargetRefused, match="another driver"):
        await published.client.unpublish(foreign.volume_id, str(foreign.target))
    assert (foreign.target / "theirs").exists()


async def test_running_program_delays_only_its_event(published: PublishedVolume) -> None:
    """A pod that runs a file gets its event late; the files after it in the plan get theirs."""
    program = shutil.which("sleep")
    assert program is not None
    with open(program, "rb") as file:
        binary = file.read()
    first = [FileSpec(path="a", content=binary, mode=0o755), *specs(1, ["user"])]
    await published.rotate(first)
    process = await trio.lowlevel.open_process([str(published.target / "a"), "30"])
    try:
        with Watcher() as watcher:
            watcher.watch(published.target, "top")
            changed = [FileSpec(path="a", content=binary + b"\0", mode=0o755), *specs(2, ["user"])]
            await published.rotate(changed)
            watcher.wait_for({Event("top", "CLOSE_WRITE", "user")})
            process.kill()
            await process.wait()
            await trio.to_thread.run_sync(watcher.wait_for, {Event("top", "CLOSE_WRITE", "a")})
    finally:
        process.kill()
        await process.wait()


async def test_removed_file_stays_readable_where_bound(
    published: PublishedVolume, tmp_path: Path
) -> None:
    """A removed file that a pod has bound goes on showing what it had, past every grace period."""
    with bind_file(published.target / "pass", tmp_path / "bound") as bound:
        await published.rotate(specs(2, ["user"]))
        pid = await published.worker_pid()
        for number in range(3, 6):
            await published.rotate(specs(number, ["user"]))
        with trio.fail_after(30):
            while snapshots_held(pid) > 2:
                await trio.sleep(0.2)
        assert bound.read_bytes() == content("pass", 1)


async def test_kubelet_root_may_be_a_link(
    tmp_path: Path, kubelet: KubeletRoot, keeper_socket: Path
) -> None:
    """A root that is a symbolic link, as some distributions have it, works."""
    link = tmp_path / "link"
    link.symlink_to(kubelet.path)
    arguments = ["fusefs", "--socket", str(keeper_socket), "--kubelet-root", str(link)]
    with Program("keeper", arguments, log=tmp_path / "keeper.log") as keeper:
        keeper.wait_until(keeper_socket.exists, "the control socket is there")
        async with connect(str(keeper_socket)) as client:
            pod_volume = kubelet.volume()
            pod_volume.prepare()
            volume = PublishedVolume(client, pod_volume)
            volume.target = link / pod_volume.target.relative_to(kubelet.path)
            await volume.publish()
            assert pod_volume.target.joinpath("user").read_bytes() == content("user", 1)
            await volume.unpublish()
            volume.close()
    assert not kubelet.mounts()

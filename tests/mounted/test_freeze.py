"""A volume that is frozen: read without any process, and repaired by the next publish."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from fusefs.client import connect
from fusefs.errors import KeeperUnavailable, VolumeFailed, VolumeUnknown
from fusefs.snapshot import FileSpec
from harness.frozen import ANOTHER_UID, NEW_NAMESPACE, connection_of, freeze, holders, look
from harness.load import load, summary
from harness.volumes import LIVE_FILES, PublishedVolume, bind_file, content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from harness.kubelet import KubeletRoot
    from harness.programs import Program

ROUNDS: Final = 3


@contextlib.contextmanager
def container(target: Path, path: Path) -> Iterator[str]:
    """Run a process that has `target` mounted at `path`, as a container does; return its name."""
    path.mkdir()
    script = 'mount --bind "$0" "$1" && echo && exec sleep 60'
    command = [*NEW_NAMESPACE, "sh", "-c", script, str(target), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            yield f"process {process.pid} (sleep)"
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def successor(
    published: PublishedVolume, keeper: Program, keeper_socket: Path
) -> AsyncIterator[None]:
    """Start a new keeper, which the volume is unpublished by at the end."""
    keeper.restart()
    keeper.wait_until(keeper_socket.exists, "the control socket is there again")
    async with connect(str(keeper_socket)) as client:
        published.client = client
        yield


@pytest.mark.timeout(60)
async def test_frozen_volume_needs_no_process(
    published: PublishedVolume,
    keeper: Program,
    keeper_socket: Path,
    kubelet: KubeletRoot,
    tmp_path: Path,
) -> None:
    """After a freeze nobody holds the connection, and every path reads as before, for anybody."""
    for _ in range(3):
        await published.rotate()
    connection = connection_of(kubelet)
    assert holders(connection)
    with bind_file(published.target / "pass", tmp_path / "bound") as bound:
        before = look(published.target)
        await freeze(keeper)
        assert not holders(connection)
        assert look(published.target) == before
        assert look(published.target, ANOTHER_UID) == before
        assert look(published.target, NEW_NAMESPACE) == before
        assert bound.read_bytes() == content("pass", 4)
        subprocess.run(["ls", "-lR"], cwd=published.target, check=True, timeout=10)
        subprocess.run(["cp", "-aL", ".", tmp_path / "copy"], cwd=published.target, check=True)
    async with successor(published, keeper, keeper_socket):
        assert connection_of(kubelet) == connection
        published.close()
        assert (await published.publish()).restart == ()
        assert len(kubelet.mounts()) == 1
        assert (published.target / "user").read_bytes() == content("user", 1)


@pytest.mark.timeout(60)
async def test_freeze_fails_no_reader(
    published: PublishedVolume,
    keeper: Program,
    keeper_socket: Path,
    kubelet: KubeletRoot,
    tmp_path: Path,
) -> None:
    """Readers and listers notice nothing of a freeze right after a rotation."""
    readers = {
        "live": ("live", published.target / "user"),
        "data": ("pair", published.target),
        "list": ("list", published.target),
        "c": ("c", published.target / "nest/deep/cert"),
    }
    async with contextlib.AsyncExitStack() as sessions:
        for round_ in range(ROUNDS):
            with load(tmp_path / f"load-{round_}", readers) as running:
                await trio.sleep(0.5)
                running.acknowledge(await published.rotate())
                await freeze(keeper)
                assert not holders(connection_of(kubelet))
                await trio.sleep(0.5)
                reports = running.stop()
            print(summary(reports))
            assert not any(report.faults for report in reports), summary(reports)
            await sessions.enter_async_context(successor(published, keeper, keeper_socket))
            published.close()
            await published.publish()


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.timeout(60)
async def test_repair_names_what_must_restart(
    keeper: Program, keeper_socket: Path, kubelet: KubeletRoot, tmp_path: Path, *, frozen: bool
) -> None:
    """A publish over a frozen or dead mount tells which containers go on seeing it."""
    async with connect(str(keeper_socket)) as client:
        volume = PublishedVolume(client, kubelet.prepared())
        await volume.publish()
    before = connection_of(kubelet)
    with container(volume.target, tmp_path / "container") as name:
        if frozen:
            await freeze(keeper)
        else:
            keeper.kill()
            keeper_socket.unlink()
            with pytest.raises(OSError, match=r"not connected|abort"):
                (volume.target / "user").stat()
        assert not holders(before)
        async with successor(volume, keeper, keeper_socket):
            volume.close()
            assert (await volume.publish()).restart == (name,)
            assert connection_of(kubelet) != before
            assert f"restart what still sees it: {name}" in keeper.log
            assert (volume.target / "user").read_bytes() == content("user", 1)
            assert (await volume.publish()).restart == (name,)
            await volume.unpublish()
            volume.close()
    assert not kubelet.mounts()


@pytest.mark.timeout(60)
async def test_frozen_volume_has_known_limits(
    published: PublishedVolume, keeper: Program, keeper_socket: Path
) -> None:
    """What the kernel cannot know is ENOTCONN; nothing hangs, and nothing is shown wrongly."""
    target = published.target
    paths = [target, target / "..data", target / "user", target / "..data/user"]
    top, data, live, lasting = (os.open(path, os.O_RDONLY) for path in paths)
    await freeze(keeper)
    gone: list[Callable[[], object]] = [
        lambda: os.stat(target / "nobody"),
        lambda: os.statvfs(target),
        lambda: os.read(live, 1),
        lambda: os.listdir(top),
    ]
    for ask in gone:
        with pytest.raises(OSError, match="not connected"):
            ask()
    with pytest.raises(OSError, match="Read-only"):
        os.open(target / "user", os.O_WRONLY)
    assert os.read(lasting, 1 << 20) == content("user", 1)
    for directory in (top, data):
        with open(os.open("user", os.O_RDONLY, dir_fd=directory), "rb") as file:
            assert file.read() == content("user", 1)
    for descriptor in (top, data, live, lasting):
        os.close(descriptor)
    async with successor(published, keeper, keeper_socket):
        await published.unpublish()


@pytest.mark.timeout(60)
async def test_large_and_many_files_are_frozen(
    keeper: Program, keeper_socket: Path, kubelet: KubeletRoot
) -> None:
    """Two files of 1 MiB, an empty one and 500 others in three directories stay, byte for byte."""
    files = [FileSpec(path=f"big{number}", content=os.urandom(1 << 20)) for number in range(2)]
    files += [FileSpec(path=f"d{n % 3}/{n}", content=b"%d" % n * n) for n in range(501)]
    async with connect(str(keeper_socket)) as client:
        volume = PublishedVolume(client, kubelet.prepared())
        await volume.publish(files)
        await freeze(keeper)
        seen = look(volume.target)
        for file in files:
            assert seen[f"./{file.path}"] == seen[f"./..1/{file.path}"] == file.content.hex()
        async with successor(volume, keeper, keeper_socket):
            await volume.unpublish()
        volume.close()


@pytest.mark.parametrize("takeover", ["resend", "journal"])
@pytest.mark.timeout(120)
async def test_killed_workers_do_not_spoil_a_freeze(
    published: PublishedVolume,
    keeper: Program,
    keeper_socket: Path,
    kubelet: KubeletRoot,
    tmp_path: Path,
) -> None:
    """Workers die and rotations come while a volume is frozen: what is left is whole and new."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    readers = {
        "live": ("live", published.target / "user"),
        "list": ("list", published.target),
        "data": ("pair", published.target),
    }
    async with contextlib.AsyncExitStack() as sessions:
        for round_ in range(ROUNDS):
            with load(tmp_path / f"load-{round_}", readers) as running:
                await trio.sleep(0.2)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(rotate_until_refused, published)
                    pids = [await published.worker_pid()]
                    await trio.sleep(chance.random() * 0.1)
                    os.kill(keeper.pid, signal.SIGUSR1)
                    for _ in range(chance.randint(1, 3)):
                        await trio.sleep(chance.random() * 0.03)
                        pids += kill_children(keeper.pid)
                    with trio.fail_after(20):
                        while not keeper.ended():
                            await trio.sleep(0.01)
                assert not holders(connection_of(kubelet))
                await trio.sleep(0.2)
                reports = running.stop()
            print(summary(reports), pids)
            assert not any(report.faults for report in reports), summary(reports)
            generation = int(os.readlink(published.target / "..data").removeprefix(".."))
            seen = look(published.target)
            for path in LIVE_FILES:
                assert bytes.fromhex(seen[f"./{path}"]) == content(path, generation)
                assert seen[f"./{path}"] == seen[f"./..{generation}/{path}"]
            await sessions.enter_async_context(successor(published, keeper, keeper_socket))
            published.close()
            await published.publish()


async def rotate_until_refused(published: PublishedVolume) -> None:
    """Bring in one generation after another until the keeper takes none any more."""
    with contextlib.suppress(VolumeFailed, VolumeUnknown, KeeperUnavailable):
        while True:
            await published.rotate()


def kill_children(pid: int) -> list[int]:
    """Kill every process that a process has started; return them."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    killed = []
    with contextlib.suppress(OSError):
        for child in found.read_text(encoding="ascii").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
                killed.append(int(child))
    return killed

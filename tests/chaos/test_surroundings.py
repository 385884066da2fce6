"""What administrators, pods and the node do to volumes that are in use."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import resource
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

import pytest
import trio

from fusefs.errors import KeeperError, TargetRefused
from harness.belongings import belongings, leaked
from harness.deaths import kill_worker
from harness.outcomes import Outcome
from harness.trouble import state
from harness.volumes import PublishedVolume, content, published_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fusefs.client import KeeperClient
    from harness.kubelet import KubeletRoot
    from harness.programs import Program

    Enter = Callable[[Outcome], None]

ROUNDS: Final = 5
REPAIR_S: Final = 5.0
UNPUBLISH_S: Final = 30.0
FILES_LEFT: Final = 60
FEW_VOLUMES: Final = 3
READERS: Final = 60
MAPPED_ROTATIONS: Final = 40
RUNNER: Final = 'while cat "$0" > /dev/null; do :; done'

pytestmark = pytest.mark.timeout(180)


async def test_administrators_harm_is_repaired(
    keeper: Program, client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """A target that was unmounted, aborted or mounted over is right after a publish."""
    before = belongings(tmp_path, [keeper.pid])
    waits = []
    async with published_volume(client, kubelet) as volume:
        for command in ("--lazy", "--force") * ROUNDS:
            await trio.run_process(["umount", command, str(volume.target)])
            waits.append(await published_again(volume))
            assert len(kubelet.mounts()) == 1
        for _ in range(ROUNDS):
            await trio.run_process(["mount", "-t", "tmpfs", "theirs", str(volume.target)])
            with pytest.raises(TargetRefused):
                await published_again(volume)
            await trio.run_process(["umount", str(volume.target)])
            waits.append(await published_again(volume))
    leaks = await leaked(before, lambda: belongings(tmp_path, [keeper.pid]))
    enter(Outcome(scenario="unmounted, mounted over", runs=len(waits), stalls=waits, leaks=leaks))
    assert not leaks
    assert max(waits) < REPAIR_S


async def published_again(volume: PublishedVolume) -> float:
    """Publish a volume, repeatedly as kubelet does, until it is read; return how long that took."""
    began = time.monotonic()
    while True:
        again = PublishedVolume(volume.client, volume.volume)
        try:
            await again.publish()
        finally:
            again.close()
        try:
            read = (volume.target / "user").read_bytes()
        except OSError as error:  # the end of a connection is not noticed at once
            assert error.errno == errno.ENOTCONN, error  # noqa: PT017 - what else would be a defect
            assert time.monotonic() - began < REPAIR_S, "it is not repaired"
        else:
            assert read == content("user", volume.generation)
            return time.monotonic() - began


@contextlib.contextmanager
def working_inside(volume: PublishedVolume) -> Iterator[None]:
    """Have a pod that works in the volume, with a file open."""
    with (
        open(volume.target / "user", "rb"),
        subprocess.Popen(["sleep", "60"], cwd=volume.target / "nest") as process,
    ):
        yield
        process.kill()


@contextlib.contextmanager
def waiting_reader(volume: PublishedVolume) -> Iterator[None]:
    """Have a reader that waits for a stopped worker."""
    with subprocess.Popen(["cat", volume.target / "pass"], stderr=subprocess.DEVNULL) as process:
        yield
        assert process.wait(UNPUBLISH_S) != 0
    assert state(process.pid) == ""


@contextlib.contextmanager
def without_target(volume: PublishedVolume) -> Iterator[None]:
    """Have nothing at the target any more."""
    subprocess.run(["umount", "--lazy", volume.target], check=True, timeout=10)
    volume.target.rmdir()
    yield


@contextlib.contextmanager
def with_directory(volume: PublishedVolume) -> Iterator[None]:
    """Have a plain directory with content at the target."""
    subprocess.run(["umount", "--lazy", volume.target], check=True, timeout=10)
    (volume.target / "sub").mkdir()
    yield


@pytest.mark.parametrize("how", [working_inside, waiting_reader, without_target, with_directory])
async def test_unpublish_converges(
    *,
    keeper: Program,
    client: KeeperClient,
    kubelet: KubeletRoot,
    tmp_path: Path,
    enter: Enter,
    how: Callable[[PublishedVolume], contextlib.AbstractContextManager[None]],
) -> None:
    """A volume goes, whatever its pod, its worker or somebody else did."""
    before = belongings(tmp_path, [keeper.pid])
    waits = []
    for _ in range(ROUNDS):
        async with published_volume(client, kubelet) as volume:
            pid = await volume.worker_pid()
            assert pid is not None
            os.kill(pid, signal.SIGSTOP if how is waiting_reader else signal.SIGKILL)
            with how(volume):
                began = time.monotonic()
                await volume.unpublish()
                waits.append(time.monotonic() - began)
    leaks = await leaked(before, lambda: belongings(tmp_path, [keeper.pid]))
    name = how.__name__.replace("_", " ")
    enter(Outcome(scenario=f"unpublished {name}", runs=ROUNDS, stalls=waits, leaks=leaks))
    assert not leaks
    assert max(waits) < UNPUBLISH_S


async def test_exhausted_descriptors_refuse_volumes(
    keeper: Program, client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """A keeper out of descriptors refuses volumes with a reason, and serves those that it has."""
    before = belongings(tmp_path, [keeper.pid])
    most = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (FILES_LEFT, most[1]))
    volumes: list[PublishedVolume] = []
    with pytest.raises(KeeperError):
        await publish_until_refused(client, kubelet, volumes)
    assert len(volumes) >= FEW_VOLUMES
    assert len(kubelet.mounts()) == len(volumes)
    for volume in volumes:
        assert (volume.target / "user").read_bytes() == content("user", 1)
    await take_away(volumes.pop())
    waits = []
    for volume in volumes:
        began = await kill_worker(volume)
        read = await trio.to_thread.run_sync((volume.target / "user").read_bytes)
        waits.append(time.monotonic() - began)
        assert read == content("user", 1)
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, most)
    for volume in volumes:
        await take_away(volume)
    leaks = await leaked(before, lambda: belongings(tmp_path, [keeper.pid]))
    enter(
        Outcome(
            scenario="descriptors exhausted, kill",
            runs=len(volumes),
            reads=2 * len(volumes),
            stalls=waits,
            leaks=leaks,
        )
    )
    assert not leaks


async def publish_until_refused(
    client: KeeperClient, kubelet: KubeletRoot, volumes: list[PublishedVolume]
) -> None:
    """Publish volumes, without end."""
    while True:
        volume = PublishedVolume(client, kubelet.prepared())
        await volume.publish()
        volumes.append(volume)


async def take_away(volume: PublishedVolume) -> None:
    """Unpublish a volume; nothing is left of it."""
    await volume.unpublish()
    volume.close()
    volume.volume.remove()


async def test_mapped_files_keep_their_version(
    keeper: Program, client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """What is mapped of `..data` reads as it was, through rotations and deaths of workers."""
    before = belongings(tmp_path, [keeper.pid])
    reads = 0
    async with published_volume(client, kubelet) as volume:
        with open(volume.target / "..data" / "user", "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
        for number in range(MAPPED_ROTATIONS):
            await volume.rotate()
            if number % 4 == 0:
                await kill_worker(volume)
            mapped.madvise(mmap.MADV_DONTNEED)  # each page is fetched anew
            assert mapped[:] == content("user", 1)
            reads += 1
        mapped.close()
    leaks = await leaked(before, lambda: belongings(tmp_path, [keeper.pid]))
    enter(Outcome(scenario="mapped, rotated", runs=MAPPED_ROTATIONS, reads=reads, leaks=leaks))
    assert not leaks


async def test_killed_readers_leave_nothing(
    keeper: Program, client: KeeperClient, kubelet: KubeletRoot, tmp_path: Path, enter: Enter
) -> None:
    """Readers that are killed at any moment end, also while their worker is being replaced."""
    print(f"seed {(seed := random.randrange(2**32))}")
    chance = random.Random(seed)
    before = belongings(tmp_path, [keeper.pid])
    waits = []
    async with published_volume(client, kubelet) as volume:
        for number in range(READERS):
            command = ["sh", "-c", RUNNER, str(volume.target / "nest/deep/cert")]
            with subprocess.Popen(command, process_group=0) as reader:
                await trio.sleep(chance.random() * 0.1)
                if number % 4 == 0:
                    await kill_worker(volume)
                began = time.monotonic()
                os.killpg(reader.pid, signal.SIGKILL)
                assert await trio.to_thread.run_sync(reader.wait, REPAIR_S) == -signal.SIGKILL
                waits.append(time.monotonic() - began)
    leaks = await leaked(before, lambda: belongings(tmp_path, [keeper.pid]))
    enter(Outcome(scenario="readers killed, end after", runs=READERS, stalls=waits, leaks=leaks))
    assert not leaks
    assert max(waits) < REPAIR_S

"""`make bench`: what a read, a publish and a rotation cost, each beside its reference in one run.

Figures are medians over interleaved rounds, so that a drift of the machine's speed hits all alike.
Nothing here asserts a time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from fusefs.client import connect
from fusefs.snapshot import FileSpec
from harness.kubelet import kubelet_root
from harness.programs import Program
from harness.volumes import PublishedVolume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fusefs.client import KeeperClient
    from harness.kubelet import KubeletRoot

SECRET: Final = b"s3cr3t-value-" + b"x" * 19  # 32 bytes
ROUNDS: Final = 30
READS_PER_ROUND: Final = 200
CYCLES: Final = 30


def read_cost_us(path: Path) -> float:
    """Return the mean time of open, read and close in one round, in microseconds."""
    began = time.perf_counter()
    for _ in range(READS_PER_ROUND):
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 4096)
        os.close(fd)
    return (time.perf_counter() - began) / READS_PER_ROUND * 1e6


def interleaved(measures: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Return the median of each measure over rounds that take turns."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(ROUNDS):
        for name, measure in measures.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def bench_reads(published: PublishedVolume, tmpfs: Path) -> None:
    """Print what reading 32 bytes costs on each path, beside tmpfs."""
    paths = {
        "tmpfs": tmpfs / "pw",
        "live": published.target / "pw",
        "..data": published.target / "..data/pw",
    }
    medians = interleaved({name: partial(read_cost_us, path) for name, path in paths.items()})
    for name, median in medians.items():
        ratio = median / medians["tmpfs"]
        print(f"open+read+close, 32 B   {name:8} {median:8.1f} µs   {ratio:6.1f} x tmpfs")


async def bench_life_cycle(client: KeeperClient, kubelet: KubeletRoot, tmpfs: Path) -> None:
    """Print what publish, rotate and unpublish cost in the keeper, beside mounting a tmpfs."""
    point = tmpfs / "point"
    point.mkdir()
    times: dict[str, list[float]] = {}
    for number in range(CYCLES):
        with timed(times, "mount a tmpfs"):
            subprocess.run(["mount", "-t", "tmpfs", "bench", point], check=True)
        subprocess.run(["umount", point], check=True)
        pod_volume = kubelet.volume()
        pod_volume.prepare()
        volume = PublishedVolume(client, pod_volume)
        with timed(times, "publish"):
            await volume.publish([FileSpec(path="pw", content=SECRET)])
        with timed(times, "rotate"):
            await volume.rotate([FileSpec(path="pw", content=SECRET + b"%d" % number)])
        with timed(times, "unpublish"):
            await volume.unpublish()
        volume.close()
    reference = statistics.median(times["mount a tmpfs"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:16} {median:8.1f} ms   {median / reference:6.1f} x mount(8) of a tmpfs")


@contextmanager
def timed(times: dict[str, list[float]], name: str) -> Iterator[None]:
    """Add the milliseconds that the block takes to `times`."""
    began = time.perf_counter()
    yield
    times.setdefault(name, []).append((time.perf_counter() - began) * 1e3)


async def main() -> None:
    """Run every benchmark on one keeper."""
    with tempfile.TemporaryDirectory(prefix="akvfs-bench-") as name:
        directory = Path(name)
        tmpfs = directory / "tmpfs"
        tmpfs.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "bench", tmpfs], check=True)
        try:
            (tmpfs / "pw").write_bytes(SECRET)
            socket = directory / "keeper" / "keeper.sock"
            with kubelet_root(directory / "kubelet") as kubelet:
                arguments = [
                    "fusefs",
                    f"--socket={socket}",
                    f"--kubelet-root={kubelet.path}",
                    "--requests-per-second=1000000",  # what is measured is not the limit
                ]
                with Program("keeper", arguments, log=directory / "keeper.log") as keeper:
                    keeper.wait_until(socket.exists, "the control socket is there")
                    async with connect(str(socket)) as client:
                        pod_volume = kubelet.volume()
                        pod_volume.prepare()
                        volume = PublishedVolume(client, pod_volume)
                        await volume.publish([FileSpec(path="pw", content=SECRET)])
                        bench_reads(volume, tmpfs)
                        await volume.unpublish()
                        volume.close()
                        await bench_life_cycle(client, kubelet, tmpfs)
        finally:
            subprocess.run(["umount", "--lazy", tmpfs], check=True)


if __name__ == "__main__":
    trio.run(main)

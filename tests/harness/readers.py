"""A volume under four readers: Python, Go, C and a shell, on every path into it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from harness.load import Load, load
from harness.volumes import bind_file, published_volume

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fusefs.client import KeeperClient
    from harness.kubelet import KubeletRoot
    from harness.volumes import PublishedVolume


def four_readers(target: Path, bound: Path) -> dict[str, tuple[str, Path]]:
    """Return a reader for each kind of path; `bound` is the file `pass`."""
    return {
        "python": ("pair", target),
        "go": ("go", bound),
        "c": ("c", target / "nest/deep/cert"),
        "shell": ("sh", target / "user"),
    }


@asynccontextmanager
async def read_volume(
    client: KeeperClient, kubelet: KubeletRoot, directory: Path
) -> AsyncIterator[tuple[PublishedVolume, Load]]:
    """Publish the standard files and read them all along; the volume is gone at the end."""
    async with published_volume(client, kubelet) as volume:
        with (
            bind_file(volume.target / "pass", kubelet.path / "bound") as bound,
            load(directory / "load", four_readers(volume.target, bound)) as running,
        ):
            yield volume, running

"""A published volume whose content says which generation it is."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import trio

from fusefs.published import DEFAULTS, Shown, VolumeOptions
from fusefs.snapshot import FileSpec, Sealed, Snapshot, seal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from fusefs.client import KeeperClient
    from harness.kubelet import KubeletRoot, PodVolume

ROTATION_S: Final = 30.0  # far beyond what a rotation takes
LIVE_FILES: Final = ("user", "pass", "nest/deep/cert")


def content(path: str, generation: int) -> bytes:
    """Return bytes that name the file and the generation in every record, of varying length."""
    name = path.rpartition("/")[2][:4].ljust(4)
    return b"%s-%08d;" % (name.encode(), generation) * (1 + generation * 7919 % 900)


def specs(generation: int, paths: Sequence[str] = LIVE_FILES) -> list[FileSpec]:
    """Return one file of `content` for each path."""
    return [
        FileSpec(
            path=path,
            content=content(path, generation),
            object_id=f"secret/{path}",
            object_version=str(generation),
        )
        for path in paths
    ]


class PublishedVolume:
    """A volume under test, and the last snapshot handed in."""

    def __init__(
        self, client: KeeperClient, volume: PodVolume, *, options: VolumeOptions = DEFAULTS
    ) -> None:
        """Use `volume` through `client`; `publish` comes first."""
        self.client = client
        self.options = options
        self.volume = volume
        self.target = volume.target
        self.snapshot: Snapshot | None = None

    @property
    def generation(self) -> int:
        """The newest generation handed in."""
        assert self.snapshot is not None
        return self.snapshot.generation

    def seal(self, files: Sequence[FileSpec]) -> Sealed:
        """Seal `files` as the next generation."""
        return seal(files, previous=self.snapshot, now_ns=time.time_ns())

    async def publish(self, files: Sequence[FileSpec] | None = None) -> Shown:
        """Publish `files`, or the standard ones at generation 1."""
        sealed = self.seal(specs(1) if files is None else files)
        try:
            shown = await self.client.publish(
                self.volume.volume_id,
                str(self.target),
                sealed,
                record=b"record",
                options=self.options,
            )
        except BaseException:
            sealed.snapshot.close()
            raise
        self.snapshot = sealed.snapshot
        return shown

    async def rotate(self, files: Sequence[FileSpec] | None = None) -> int:
        """Bring in `files`, or the standard ones; return the acknowledged generation."""
        sealed = self.seal(specs(self.generation + 1) if files is None else files)
        # Once asked for it comes in, whether the caller still waits for it or not.
        try:
            with trio.CancelScope(shield=True), trio.fail_after(ROTATION_S):
                await self.client.rotate(self.volume.volume_id, sealed, record=b"record")
        except BaseException:
            sealed.snapshot.close()
            raise
        assert self.snapshot is not None
        self.snapshot.close()
        self.snapshot = sealed.snapshot
        return self.generation

    async def unpublish(self) -> None:
        """Take the volume away."""
        await self.client.unpublish(self.volume.volume_id, str(self.target))

    async def worker_pid(self) -> int | None:
        """Return the worker that serves the volume now."""
        for found in await self.client.volumes(snapshots=False):
            if found.volume_id == self.volume.volume_id:
                return found.worker_pid
        return None

    def close(self) -> None:
        """Unmap the snapshot."""
        if self.snapshot is not None:
            self.snapshot.close()
            self.snapshot = None


@asynccontextmanager
async def published_volume(
    client: KeeperClient, kubelet: KubeletRoot
) -> AsyncIterator[PublishedVolume]:
    """Publish the standard files in a new pod; nothing is left of the volume at the end."""
    volume = PublishedVolume(client, kubelet.prepared())
    await volume.publish()
    try:
        yield volume
    finally:
        await volume.unpublish()
        volume.close()
        volume.volume.remove()


@contextmanager
def bind_file(source: Path, destination: Path) -> Iterator[Path]:
    """Bind one file elsewhere, as kubelet does for a `subPath`."""
    destination.touch()
    subprocess.run(["mount", "--bind", source, destination], check=True, timeout=10)
    try:
        yield destination
    finally:
        subprocess.run(["umount", "--lazy", destination], check=True, timeout=10)


def snapshots_held(pid: int | None) -> int:
    """Return how many snapshots a worker has open; each mapping holds a duplicate."""
    links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    return sum("akvfs-snapshot" in link or "secretmem" in link for link in links) // 2

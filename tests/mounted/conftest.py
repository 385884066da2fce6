"""Fixtures of the mounted tier: one keeper behind a shared kubelet directory, one volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusefs.client import KeeperClient, connect
from harness import programs
from harness.kubelet import KubeletDirectory, kubelet_directory
from harness.volumes import PublishedVolume

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[KubeletDirectory]:
    """Provide a kubelet root whose mounts propagate."""
    with kubelet_directory(tmp_path) as directory:
        yield directory


@pytest.fixture
async def keeper(
    tmp_path: Path, kubelet: KubeletDirectory
) -> AsyncIterator[tuple[programs.Program, Path]]:
    """Run a keeper; provide it and its control socket."""
    async with programs.keeper(tmp_path, kubelet.root) as running:
        yield running


@pytest.fixture
async def client(keeper: tuple[programs.Program, Path]) -> AsyncIterator[KeeperClient]:
    """Open a registered session with the keeper."""
    async with connect(str(keeper[1])) as session:
        yield session


@pytest.fixture
async def published(
    client: KeeperClient, kubelet: KubeletDirectory
) -> AsyncIterator[PublishedVolume]:
    """Publish the standard files; the volume is gone at the end."""
    volume = PublishedVolume(client, kubelet.volume("secrets"))
    await volume.publish()
    try:
        yield volume
    finally:
        await volume.unpublish()
        volume.close()

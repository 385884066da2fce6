"""Fixtures of the mounted tier: one keeper behind a shared kubelet directory, one volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusefs.client import KeeperClient, connect
from harness.kubelet import KubeletRoot, kubelet_root
from harness.programs import Program
from harness.volumes import PublishedVolume

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[KubeletRoot]:
    """Provide a kubelet root whose mounts propagate."""
    with kubelet_root(tmp_path / "kubelet") as root:
        yield root


@pytest.fixture
def keeper_socket(tmp_path: Path) -> Path:
    """Say where the keeper listens."""
    return tmp_path / "keeper" / "keeper.sock"


@pytest.fixture
def keeper(tmp_path: Path, kubelet: KubeletRoot, keeper_socket: Path) -> Iterator[Program]:
    """Run a keeper."""
    arguments = ["fusefs", "--socket", str(keeper_socket), "--kubelet-root", str(kubelet.path)]
    with Program("keeper", arguments, log=tmp_path / "keeper.log") as program:
        program.wait_until(keeper_socket.exists, "the control socket is there")
        yield program


@pytest.fixture
async def client(keeper: Program, keeper_socket: Path) -> AsyncIterator[KeeperClient]:
    """Open a registered session with the keeper."""
    assert not keeper.ended()
    async with connect(str(keeper_socket)) as session:
        yield session


@pytest.fixture
async def published(
    client: KeeperClient, kubelet: KubeletRoot, keeper_socket: Path
) -> AsyncIterator[PublishedVolume]:
    """Publish the standard files; the volume is gone at the end."""
    pod_volume = kubelet.volume()
    pod_volume.prepare()
    volume = PublishedVolume(client, pod_volume)
    await volume.publish()
    try:
        yield volume
    finally:
        async with connect(str(keeper_socket)) as newest:  # whoever is obeyed by then
            volume.client = newest
            await volume.unpublish()
        volume.close()

"""Fixtures of tiers with real mounts: a keeper behind a shared kubelet directory, a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusefs.client import KeeperClient, connect
from harness.kubelet import KubeletRoot, kubelet_root
from harness.programs import WITH_HARNESS, Program
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
def takeover() -> str:
    """Say how workers take over."""
    return "auto"


@pytest.fixture
def keeper_command(kubelet: KubeletRoot, keeper_socket: Path, takeover: str) -> list[str]:
    """Say how the keeper is started: with no limit that a busy reader could come to."""
    return [
        "fusefs",
        f"--socket={keeper_socket}",
        f"--kubelet-root={kubelet.path}",
        f"--takeover={takeover}",
        "--requests-per-second=1000000",
    ]


@pytest.fixture
def keeper(tmp_path: Path, keeper_command: list[str], keeper_socket: Path) -> Iterator[Program]:
    """Run a keeper."""
    log = tmp_path / "keeper.log"
    with Program("keeper", keeper_command, log=log, environment=WITH_HARNESS) as program:
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

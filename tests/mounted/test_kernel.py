"""A kernel that lacks what a volume might have."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from fusefs.errors import KernelUnsupported
from fusefs.published import VolumeOptions
from harness.volumes import PublishedVolume, content

if TYPE_CHECKING:
    from pathlib import Path

    from fusefs.client import KeeperClient
    from harness.kubelet import KubeletRoot


@pytest.fixture
def keeper_command(kubelet: KubeletRoot, keeper_socket: Path, takeover: str) -> list[str]:
    """Run a keeper that finds its kernel too old."""
    return ["harness.oldkernel", str(keeper_socket), str(kubelet.path), takeover]


@pytest.mark.parametrize("takeover", ["resend"])
async def test_kernel_without_resend_is_named(client: KeeperClient, kubelet: KubeletRoot) -> None:
    """Where RESEND is asked for, a kernel without it gets an error, and keeps nothing."""
    pod_volume = kubelet.volume()
    pod_volume.prepare()
    volume = PublishedVolume(client, pod_volume, options=VolumeOptions(filesystem="fuse"))
    with pytest.raises(KernelUnsupported, match=r"RESEND.*6\.9"):
        await volume.publish()
    assert not await client.volumes()
    assert not kubelet.mounts()
    assert not volume.target.exists()


async def test_kernel_without_resend_is_enough(published: PublishedVolume) -> None:
    """By default a volume is served there too, and outlives its worker."""
    for generation in range(2, 5):
        with trio.fail_after(10):
            while (pid := await published.worker_pid()) is None:
                await trio.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        assert await published.rotate() == generation
        assert (published.target / "user").read_bytes() == content("user", generation)

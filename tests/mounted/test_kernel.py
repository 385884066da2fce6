"""A kernel that lacks what a volume needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fusefs.client import VolumeOptions, connect
from fusefs.errors import KernelUnsupported
from harness.programs import Program
from harness.volumes import PublishedVolume

if TYPE_CHECKING:
    from harness.kubelet import KubeletRoot

TESTS: Final = Path(__file__).parents[1]


async def test_kernel_without_resend_is_named(
    tmp_path: Path, kubelet: KubeletRoot, keeper_socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that does not offer RESEND gets an error that names it, and keeps nothing."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    arguments = ["harness.demanding", str(keeper_socket), str(kubelet.path)]
    with Program("keeper", arguments, log=tmp_path / "keeper.log") as keeper:
        keeper.wait_until(keeper_socket.exists, "the control socket is there")
        async with connect(str(keeper_socket)) as client:
            pod_volume = kubelet.volume()
            pod_volume.prepare()
            volume = PublishedVolume(client, pod_volume, options=VolumeOptions(filesystem="fuse"))
            with pytest.raises(KernelUnsupported, match=r"RESEND.*6\.9"):
                await volume.publish()
            assert not await client.volumes()
    assert not kubelet.mounts()
    assert not volume.target.exists()

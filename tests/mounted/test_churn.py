"""Many requests in any order, with kills in between: one mount each, and in the end none."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Final

import pytest
import trio

from harness.belongings import FUSE, children, descriptors
from harness.churn import Churn, publish_often
from harness.volumes import content

if TYPE_CHECKING:
    from pathlib import Path

    from harness.kubelet import KubeletRoot
    from harness.programs import Program
    from harness.volumes import PublishedVolume

PUBLISHES: Final = 200
VOLUMES: Final = 50


@pytest.mark.timeout(120)
async def test_many_publishes_are_one_mount(
    published: PublishedVolume, keeper: Program, kubelet: KubeletRoot
) -> None:
    """However often a volume is published, and unmounted by somebody, its target has one mount."""
    pid, before = await published.worker_pid(), descriptors(keeper.pid)
    await publish_often(published, kubelet, PUBLISHES)
    assert (await published.worker_pid(), descriptors(keeper.pid)) == (pid, before)
    assert (published.target / "user").read_bytes() == content("user", 1)


@pytest.mark.timeout(240)
async def test_volumes_in_random_order_leave_nothing(
    keeper: Program, keeper_socket: Path, kubelet: KubeletRoot
) -> None:
    """Whatever comes in between, no mount, process, directory or descriptor is left of a volume."""
    seed = random.randrange(2**32)
    churn = Churn(keeper, keeper_socket, kubelet, seed, volumes=VOLUMES)
    print(f"\nseed {seed}")
    try:
        await churn.run()
    finally:
        print(churn.done)
    assert churn.done["published"] == VOLUMES
    assert not kubelet.mounts()
    assert list((kubelet.path / "pods").iterdir()) == []
    with trio.fail_after(10):
        while children(keeper.pid):
            await trio.sleep(0.01)
    assert descriptors(keeper.pid, FUSE) == 0
    assert descriptors(os.getpid(), FUSE) == 0

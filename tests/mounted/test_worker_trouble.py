"""Workers that die or hang under a reader are replaced, and the reader gets its answer."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from harness.trouble import TROUBLE, replaced_after

if TYPE_CHECKING:
    from pathlib import Path

    from harness.kubelet import KubeletRoot
    from harness.volumes import PublishedVolume

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def keeper_command(kubelet: KubeletRoot, keeper_socket: Path) -> list[str]:
    """Run the keeper whose workers can be made to hang."""
    return ["harness.misbehaving", str(keeper_socket), str(kubelet.path)]


@pytest.mark.parametrize("number", TROUBLE.values(), ids=TROUBLE)
async def test_worker_in_trouble_is_replaced(
    published: PublishedVolume, number: signal.Signals
) -> None:
    """Within five seconds a look-up that came too late is answered, and nothing is stuck."""
    print(f"answered after {await replaced_after(published, number):.2f} s")
    await published.rotate()
    assert (published.target / "user").read_bytes()


async def test_two_workers_in_a_row_are_replaced(published: PublishedVolume) -> None:
    """The successor of a worker that was stuck in the kernel is watched as well."""
    for number in (signal.SIGUSR2, signal.SIGSTOP, signal.SIGUSR2):
        await replaced_after(published, number)
    assert (published.target / "user").read_bytes()

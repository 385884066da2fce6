"""A keeper that ends: who may still take over from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusefs import effects, protocol
from fusefs.config import Config
from fusefs.errors import VolumeFailed
from fusefs.lifecycle import Lifecycle
from fusefs.loop import Loop
from fusefs.sessions import Sessions
from fusefs.target import KubeletRoot
from fusefs.volumes import Volumes

if TYPE_CHECKING:
    from pathlib import Path

TICKET = effects.Ticket(1, 1)


def test_keeper_that_freezes_is_not_taken_over(tmp_path: Path, announced: list[str]) -> None:
    """What is frozen cannot be served any more: the successor waits until it may start anew."""
    announced.append("freezing 0 volumes")
    (tmp_path / "pods").mkdir()
    config = Config(socket=str(tmp_path / "keeper.sock"), kubelet_root=str(tmp_path))
    loop, root = Loop(), KubeletRoot(str(tmp_path))
    volumes = Volumes(
        config,
        root,
        loop,
        str(tmp_path / "private"),
        answer=lambda _ticket, _error: None,
        announce=lambda _notice, _descriptors: None,
    )
    ended: list[bool] = []
    volumes.freeze(lambda: ended.append(True))
    assert ended, "there is nothing to wait for"
    lifecycle = Lifecycle(config, loop, volumes, Sessions(loop, lambda *_: None))
    with pytest.raises(VolumeFailed, match="wait for the lease"):
        lifecycle.hear(TICKET, protocol.TakeOver(1, 1))
    root.close()
    loop.close()

"""The keeper's ready file, with the supervisor that starts the keeper again."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from fusefs.client import connect
from harness.programs import Program

if TYPE_CHECKING:
    from harness.kubelet import KubeletRoot


def child_of(pid: int) -> int | None:
    """Return the one child of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


async def test_ready_file_follows_the_keeper(
    tmp_path: Path, kubelet: KubeletRoot, keeper_socket: Path
) -> None:
    """It is there when a keeper answers, anew after one was killed, and gone at the end."""
    ready = tmp_path / "ready"
    ready.touch()
    os.utime(ready, (0, 0))
    arguments = ["fusefs", "--supervise", f"--socket={keeper_socket}", f"--ready-file={ready}"]
    arguments += [f"--kubelet-root={kubelet.path}"]

    def fresh() -> bool:
        """Return whether a keeper has made the file that is there."""
        with contextlib.suppress(FileNotFoundError):
            return ready.stat().st_mtime > 0
        return False

    with Program("supervisor", arguments, log=tmp_path / "keeper.log") as program:
        program.wait_until(fresh, "the keeper is ready")
        async with connect(str(keeper_socket)):
            pass
        keeper = child_of(program.pid)
        assert keeper
        os.utime(ready, (0, 0))
        os.kill(keeper, signal.SIGKILL)
        program.wait_until(fresh, "the next keeper is ready")
        async with connect(str(keeper_socket)):
            pass
        assert child_of(program.pid) not in {keeper, None}
        assert program.stop() == 0
    assert not ready.exists()
    assert not keeper_socket.exists()

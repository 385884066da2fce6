"""The demo's end of the pod: starts `csi.cli.pod` and gives orders, each with a deadline."""

from __future__ import annotations

import os
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from csi.cli import traces
from csi.cli.errors import StepFailed
from csi.cli.processes import python

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from csi.cli.podorders import AnyOrder
    from csi.cli.stage import Stage

ANSWER_S: Final = 15.0

_END_S: Final = 5.0
_CHUNK: Final = 1 << 16

A = TypeVar("A", bound=msgspec.Struct)


class Container:
    """A running pod."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        """Speak to `child`, whose two ends are pipes."""
        if child.stdin is None or child.stdout is None:
            message = "the pod has no pipes"
            raise StepFailed(message)
        self._orders = trio.lowlevel.FdStream(os.dup(child.stdin.fileno()))
        self._answers = trio.lowlevel.FdStream(os.dup(child.stdout.fileno()))
        self._buffer = b""
        child.stdin.close()
        child.stdout.close()

    async def ask(self, order: AnyOrder, answer: type[A]) -> A:
        """Give an order and return the answer.

        Raises:
            StepFailed: The pod does not answer in time, or has ended.
        """
        with trio.move_on_after(ANSWER_S):
            try:
                await self._orders.send_all(msgspec.json.encode(order) + b"\n")
                line = await self._read_line()
            except trio.BrokenResourceError:
                line = b""
            if line:
                return msgspec.json.decode(line, type=answer)
            message = "the pod has ended; see its log"
            raise StepFailed(message)
        message = f"a read in the pod has not ended within {ANSWER_S:.0f} s"
        raise StepFailed(message)

    async def close(self) -> None:
        """End the orders."""
        await self._orders.aclose()
        await self._answers.aclose()

    async def _read_line(self) -> bytes:
        while b"\n" not in self._buffer:
            chunk = await self._answers.receive_some(_CHUNK)
            if not chunk:
                return b""
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


@asynccontextmanager
async def container(stage: Stage, file: str) -> AsyncIterator[Container]:
    """Run a pod with the volume while the block runs; `file` is bound elsewhere in it."""
    mount_point = stage.workspace.pod / file
    mount_point.touch()
    child = _start(stage, file, mount_point)
    pidfd = os.pidfd_open(child.pid)
    running = Container(child)
    try:
        yield running
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_S):
            await running.close()
            await trio.lowlevel.wait_readable(pidfd)
        os.close(pidfd)
        if child.poll() is None:
            child.kill()  # what is left of it then ends with the run


def _start(stage: Stage, file: str, mount_point: Path) -> subprocess.Popen[bytes]:
    arguments = (str(stage.kubelet.target), file, str(mount_point))
    with stage.workspace.log("pod").open("ab") as log_file:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *python("csi.cli.pod", *arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            env={**os.environ, traces.MARKER: stage.workspace.run},
            start_new_session=True,
        )

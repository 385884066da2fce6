"""Looking at a mount in a short-lived child with a deadline.

Whoever opens a file of a volume waits for its worker, and a worker that hangs makes such a wait one
that not even SIGKILL ends. So this process never looks itself, and a child that does not answer is
left behind: it ends with the mount.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE_S: Final = 5.0

_MAX_OUTPUT: Final = 1 << 16  # what a pipe holds, so nobody waits for it to be emptied
_DEATH_S: Final = 0.5
_LEFT_BEHIND: Final[list[subprocess.Popen[bytes]]] = []


@attrs.frozen(kw_only=True)
class Sight:
    """What a child saw.

    Attributes:
        code: Its exit code; None when it did not answer in time.
        output: Its standard output.
        errors: Its standard error.
    """

    code: int | None
    output: bytes = attrs.field(default=b"", repr=False)
    errors: str = ""


async def look(command: Sequence[str], deadline: float = DEADLINE_S) -> Sight:
    """Run a command that prints less than a pipe holds."""
    child = _start(command)
    pidfd = os.pidfd_open(child.pid)
    try:
        with trio.move_on_after(deadline) as scope:
            await trio.lowlevel.wait_readable(pidfd)
    finally:
        if child.poll() is None:
            child.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _DEATH_S):
                await trio.lowlevel.wait_readable(pidfd)
            _let_go(child)
        os.close(pidfd)
    if scope.cancelled_caught or child.stdout is None or child.stderr is None:
        return Sight(code=None)
    with child.stdout, child.stderr:
        output, errors = child.stdout.read(_MAX_OUTPUT), child.stderr.read(_MAX_OUTPUT)
    return Sight(code=child.returncode, output=output, errors=errors.decode(errors="replace"))


async def content(path: str, deadline: float = DEADLINE_S) -> bytes | None:
    """Return what a file holds, None when it cannot be read."""
    sight = await look(["cat", "--", path], deadline)
    return sight.output if sight.code == 0 else None


def _let_go(child: subprocess.Popen[bytes]) -> None:
    """Reap a child that was killed, or leave it behind."""
    if child.poll() is None:
        _LEFT_BEHIND.append(child)
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C.UTF-8"},  # what it prints is read here
    )

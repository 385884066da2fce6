"""The socket on which a running playground takes orders: one JSON line, one JSON line back.

Secrets travel through it and not through files; the socket is for its owner only.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from csi.cli import workspace
from csi.cli.errors import CliError, ControlFailed, NotRunning, UnknownSecret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

ANSWER_S: Final = 60.0

_MAX_LINE: Final = 1 << 20
_BACKLOG: Final = 16
_LOOK_S: Final = 0.05


class _SetSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    value: str


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`known` is there when the name was unknown, `error` when anything was wrong."""

    version: str = ""
    error: str = ""
    known: list[str] | None = None


async def serve(
    path: Path,
    set_secret: Callable[[str, str], Awaitable[str]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Take orders at `path` until cancelled."""
    hidden = path.with_name(f".{path.name}.new")
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        await listening.bind(str(hidden))
        hidden.chmod(0o600)
        listening.listen(_BACKLOG)
        hidden.rename(path)

        async def handle(stream: trio.SocketStream) -> None:
            with trio.move_on_after(ANSWER_S):
                try:
                    answer = await _carry_out(await _read_line(stream), set_secret)
                    await stream.send_all(msgspec.json.encode(answer) + b"\n")
                except trio.BrokenResourceError:
                    return  # it asked and left

        task_status.started()
        await trio.serve_listeners(handle, [trio.SocketListener(listening)])


def set_secret(directory: Path, name: str, value: str) -> str:
    """Ask the playground in a folder to set a secret; return the version once the vault has it.

    One that is on its way up is waited for.

    Raises:
        NotRunning: No playground runs there.
        UnknownSecret: It has no secret of this name.
        ControlFailed: It could not.
    """
    order = msgspec.json.encode(_SetSecret(name, value)) + b"\n"
    deadline = time.monotonic() + ANSWER_S
    while (answer := _ask(directory, order)) is None:
        if not workspace.is_running(directory) or time.monotonic() > deadline:
            message = (
                f"no playground answers in {directory}; start one: "
                f"akvfs playground --dir {directory}"
            )
            raise NotRunning(message)
        time.sleep(_LOOK_S)
    if answer.known is not None:
        raise UnknownSecret(name, answer.known)
    if answer.error:
        raise ControlFailed(answer.error)
    return answer.version


def _ask(directory: Path, order: bytes) -> _Answer | None:
    """Give one order; None when nobody takes it, or whoever took it has ended."""
    used = workspace.used_by_run(directory)
    if used is None:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(used.control_socket))
            connection.sendall(order)
            with connection.makefile("rb") as stream:
                return msgspec.json.decode(stream.readline(_MAX_LINE), type=_Answer)
    except (OSError, msgspec.DecodeError):
        return None


async def _read_line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _MAX_LINE:
        chunk = await stream.receive_some()
        if not chunk:
            break
        line += chunk
    return line


async def _carry_out(line: bytes, set_secret: Callable[[str, str], Awaitable[str]]) -> _Answer:
    try:
        order = msgspec.json.decode(line, type=_SetSecret)
        return _Answer(version=await set_secret(order.name, order.value))
    except UnknownSecret as error:
        return _Answer(error=str(error), known=error.known)
    except (CliError, msgspec.DecodeError) as error:
        return _Answer(error=str(error))

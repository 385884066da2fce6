"""The socket on which a running playground takes orders: one JSON line, one JSON line back.

Secrets travel through it and not through files; the socket is for its owner only.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from csi.cli.errors import CliError, ControlFailed, NotRunning, UnknownSecret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

ANSWER_S: Final = 60.0

_MAX_LINE: Final = 1 << 20
_BACKLOG: Final = 16


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


def set_secret(path: Path, name: str, value: str) -> str:
    """Ask the playground at `path` to set a secret; return the version once the vault has it.

    Raises:
        NotRunning: Nobody listens there.
        UnknownSecret: It has no secret of this name.
        ControlFailed: It could not.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(_SetSecret(name, value)) + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline(_MAX_LINE)
        answer = msgspec.json.decode(line, type=_Answer)
    except (OSError, msgspec.DecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it ended before it answered"
        message = (
            f"no playground answers in {path.parent} ({reason}); "
            f"start one: akvfs playground --dir {path.parent}"
        )
        raise NotRunning(message) from error
    if answer.known is not None:
        raise UnknownSecret(name, answer.known)
    if answer.error:
        raise ControlFailed(answer.error)
    return answer.version


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

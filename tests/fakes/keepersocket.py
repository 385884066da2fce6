"""A keeper that is only a socket: it hears what a client says, and answers as a test tells it."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from fusefs import packets, protocol

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

Answer = protocol.Message | tuple[protocol.Message, Sequence[int]] | bytes | None
Respond = Callable[[protocol.NodeMessage], Answer | Awaitable[Answer]]


def _content(descriptor: int) -> bytes:
    """Return what a memory file holds, secret memory too."""
    with mmap.mmap(descriptor, os.fstat(descriptor).st_size, prot=mmap.PROT_READ) as mapping:
        return mapping[:]


class KeeperSocket:
    """One end of a control socket.

    Attributes:
        path: Where it listens.
        heard: Every message, in order.
        contents: What each descriptor held that came with them, in order.
        respond: Called with each message: returns what is sent back, with or without descriptors
            (which it closes), raw bytes, or None for silence.
        connection: The client's connection, once there is one.
    """

    def __init__(self, path: str) -> None:
        """Say how; `serve` listens."""
        self.path = path
        self.heard: list[protocol.NodeMessage] = []
        self.contents: list[bytes] = []
        self.respond: Respond = lambda message: protocol.Done(message.request)
        self.connection: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen(1)
        self._listener.settimeout(0)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve one client until it leaves."""
        task_status.started()
        await trio.lowlevel.wait_readable(self._listener)
        self.connection, _ = self._listener.accept()
        self.connection.settimeout(0)
        while True:
            await trio.lowlevel.wait_readable(self.connection)
            received = packets.receive(self.connection, protocol.AT_KEEPER)
            if received is None:
                return
            message, descriptors = received
            for descriptor in descriptors:
                self.contents.append(_content(descriptor))
                os.close(descriptor)
            self.heard.append(message)
            answer = self.respond(message)
            self.send(await answer if isinstance(answer, Awaitable) else answer)

    def send(self, answer: Answer) -> None:
        """Send something to the client, asked or not."""
        assert self.connection is not None
        match answer:
            case None:
                return
            case bytes():
                self.connection.send(answer)
            case tuple():
                packets.send(self.connection, answer[0], answer[1])
                for descriptor in answer[1]:
                    os.close(descriptor)
            case _:
                packets.send(self.connection, answer)

    def hang_up(self) -> None:
        """Close the connection, as a keeper that dies."""
        assert self.connection is not None
        self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
        if self.connection is not None:
            self.connection.close()

    @classmethod
    @contextlib.asynccontextmanager
    async def listening(cls, directory: Path) -> AsyncIterator[Self]:
        """Listen in `directory` for a while."""
        made = cls(str(directory / "keeper.sock"))
        with contextlib.closing(made):
            async with trio.open_nursery() as nursery:
                await nursery.start(made.serve)
                yield made
                nursery.cancel_scope.cancel()

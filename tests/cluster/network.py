"""Ways between this process's network and that of the node, for connections one by one."""

from __future__ import annotations

import ctypes
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

T = TypeVar("T")

LOOPBACK: Final = "127.0.0.1"
_CLONE_NEWNET: Final = 0x40000000
_CONNECT_S: Final = 5.0
_PART_BYTES: Final = 65536


@contextmanager
def inside(init: int) -> Iterator[Callable[[Callable[[], T]], T]]:
    """Provide what runs a function in the network namespace of another process.

    A socket stays in the namespace that it was made in, whoever uses it then.
    """

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
        with Path(f"/proc/{init}/ns/net").open("rb") as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), "setns")

    with ThreadPoolExecutor(1, initializer=enter) as pool:  # its thread is in there for good
        yield lambda function: pool.submit(function).result()


async def carry(near: trio.SocketStream, far: trio.SocketStream) -> None:
    """Carry everything between two connections, which end together."""
    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(_pump, near, far)
        nursery.start_soon(_pump, far, near)


class Way:
    """A port of this machine that leads to an address in the node's network.

    Attributes:
        port: On loopback.
    """

    def __init__(self, port: int) -> None:
        """Lead there from a port."""
        self.port = port
        self._connections: set[trio.CancelScope] = set()

    def cut(self) -> None:
        """Drop every connection without a word; new ones are carried."""
        for scope in self._connections:
            scope.cancel()

    async def serve(self, near: trio.SocketStream, connect: Callable[[], socket.socket]) -> None:
        """Carry one connection until it ends or is cut; none if there is nobody to connect to."""
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                far = await trio.to_thread.run_sync(connect)
                await carry(near, trio.SocketStream(trio.socket.from_stdlib_socket(far)))
            except OSError:
                await trio.aclose_forcefully(near)
            finally:
                self._connections.discard(scope)


@asynccontextmanager
async def way_into(init: int, address: str, port: int) -> AsyncIterator[Way]:
    """Open a way from loopback into the network of a process, inside the block."""
    listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    way = Way(int(listeners[0].socket.getsockname()[1]))
    with inside(init) as run:

        def connect() -> socket.socket:
            return run(lambda: socket.create_connection((address, port), _CONNECT_S))

        async def serve(near: trio.SocketStream) -> None:
            await way.serve(near, connect)

        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, serve, listeners)
            yield way
            nursery.cancel_scope.cancel()


async def _pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    """Carry one direction until it ends; whatever ends it ends it on the other side, too."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while part := await source.receive_some(_PART_BYTES):
            await sink.send_all(part)
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await sink.send_eof()

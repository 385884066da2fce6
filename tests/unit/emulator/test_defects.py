"""What a defect of the emulator itself does: as little as possible."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import trio

from provider.emulator import connection
from provider.emulator.certificates import make_identity
from provider.emulator.dispatch import Dispatcher
from provider.emulator.messages import Reply, Request
from provider.emulator.state import EmulatorState

if TYPE_CHECKING:
    import pytest

    from provider.emulator import EmulatorConfig


class BrokenClock:
    """A clock that stops working on command."""

    broken = False

    def __call__(self) -> float:
        """Return Unix time, or fail."""
        if self.broken:
            message = "the clock is broken"
            raise RuntimeError(message)
        return 1_000.0


async def test_unexpected_error_is_an_answer(
    config: EmulatorConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in a service is a 500 for the one client, and logged."""
    clock = BrokenClock()
    dispatcher = Dispatcher(state=EmulatorState(config, 1, clock), admin_token="token")
    clock.broken = True
    request = Request.parse("GET", "/secrets", {"host": "demo.vault.akv.test:1"}, b"")
    reply = await dispatcher.respond(request)
    assert reply.status == 500
    assert [record.getMessage() for record in caplog.records] == ["request failed"]
    assert "token" not in repr(dispatcher)


async def test_broken_connection_code_ends_one(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in the code of a connection ends that connection, and is logged."""

    async def respond(request: Request) -> Reply:
        await trio.lowlevel.checkpoint()
        raise AssertionError(request)

    identity = make_identity(["here.test"])
    trusting = ssl.create_default_context(cadata=identity.ca_pem.decode())
    near, far = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve, far, identity.context, respond)
        client = trio.SSLStream(near, trusting, server_hostname="here.test", https_compatible=True)
        await client.send_all(b"GET / HTTP/1.1\r\nHost: here.test\r\n\r\n")
        assert await client.receive_some(100) == b""
        await trio.aclose_forcefully(client)
    assert [record.getMessage() for record in caplog.records] == ["connection failed"]


def pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair of TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]

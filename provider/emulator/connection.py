"""HTTP/1.1 over one TLS connection, with h11 for the protocol.

Reads a request, hands it over, writes the reply, until either side closes. A client that breaks
the protocol gets 400 and is gone; one that says nothing is closed after `IDLE_S`.
"""

from __future__ import annotations

import contextlib
import http
import logging
import socket
import struct
from typing import TYPE_CHECKING

import attrs
import h11
import trio

from provider.emulator.messages import Ending, Reply, Request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
IDLE_S = 300.0  # longer than the clients' pools keep a connection, so that they end it
MAX_BODY = 64 * 1024 * 1024  # an import of 500 secrets of 25 kB fits
_RECEIVE = 65_536

Stream = trio.SSLStream[trio.SocketStream]


class _BodyTooLong(Exception):
    """The body of a request is longer than `MAX_BODY`."""


async def serve(
    tcp: trio.SocketStream, context: ssl.SSLContext, respond: Callable[[Request], Awaitable[Reply]]
) -> None:
    """Serve one connection to its end; no error leaves."""
    stream: Stream = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
    try:
        with trio.fail_after(HANDSHAKE_S):
            await stream.do_handshake()
        await _Connection(stream=stream, respond=respond).run()
    except (
        trio.BrokenResourceError,
        trio.ClosedResourceError,
        trio.TooSlowError,
        OSError,
    ) as error:
        log.debug("connection ended", extra={"reason": type(error).__name__})
    except Exception:  # a defect of ours must not end the other connections
        log.exception("connection failed")
    finally:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(stream)


@attrs.define(kw_only=True)
class _Connection:
    stream: Stream
    respond: Callable[[Request], Awaitable[Reply]]
    protocol: h11.Connection = attrs.field(factory=lambda: h11.Connection(h11.SERVER))

    async def run(self) -> None:
        """Answer requests until the connection ends."""
        try:
            while (request := await self._read()) is not None:
                if not await self._write(request, await self.respond(request)):
                    return
                if (
                    self.protocol.our_state is not h11.DONE
                    or self.protocol.their_state is not h11.DONE
                ):
                    return
                self.protocol.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await self._give_up(error.error_status_hint)
        except _BodyTooLong:
            await self._give_up(413)

    async def _read(self) -> Request | None:
        """Return the next request, or None when the client is done."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Request):
                head = event
                _check_length(int(dict(event.headers).get(b"content-length", 0)))
            elif isinstance(event, h11.Data):
                body += event.data
                _check_length(len(body))
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _request(head, bytes(body))
            else:
                return None

    async def _next_event(self) -> object:
        while True:
            event = self.protocol.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self.protocol.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            with trio.move_on_after(IDLE_S) as waiting:
                self.protocol.receive_data(bytes(await self.stream.receive_some(_RECEIVE)))
            if waiting.cancelled_caught:
                return None

    async def _write(self, request: Request, reply: Reply) -> bool:
        """Send a reply; False when that ended the connection."""
        if reply.ending is Ending.RESET:
            _reset(self.stream.transport_stream)
            return False
        body = b"" if request.method == "HEAD" else reply.body
        if reply.ending is Ending.TRUNCATE:
            body = body[: len(body) // 2]
        data = self.protocol.send(_head(reply)) or b""
        data += (self.protocol.send(h11.Data(data=body)) or b"") if body else b""
        if reply.ending is Ending.TRUNCATE:
            await self.stream.send_all(data)
            return False
        data += self.protocol.send(h11.EndOfMessage()) or b""
        await self.stream.send_all(data)
        return True

    async def _send(self, event: h11.Event) -> None:
        await self.stream.send_all(self.protocol.send(event) or b"")

    async def _give_up(self, status: int) -> None:
        headers = [("Content-Length", "0"), ("Connection", "close")]
        await self._send(h11.Response(status_code=status, headers=headers))
        await self._send(h11.EndOfMessage())


def _head(reply: Reply) -> h11.Response:
    headers = list(reply.headers)
    if reply.status != http.HTTPStatus.NO_CONTENT:
        headers.append(("Content-Length", str(len(reply.body))))
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return h11.Response(status_code=reply.status, headers=encoded)


def _check_length(length: int) -> None:
    if length > MAX_BODY:
        raise _BodyTooLong


def _request(head: h11.Request, body: bytes) -> Request:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    target = head.target.decode("latin-1")
    return Request.parse(head.method.decode("ascii"), target, headers, body)


def _reset(tcp: trio.SocketStream) -> None:
    """End a connection with RST: what is under way is lost, as when a machine goes away."""
    linger_zero = struct.pack("ii", 1, 0)
    tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
    tcp.socket.close()

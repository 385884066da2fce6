"""The metrics over HTTP: ``GET /metrics``, and nothing else.

Whoever reaches the pod may ask, so nothing here can hold up the node server: an answer takes a
millisecond, a connection is for one request and has a deadline, and there are only so many. An
address that cannot be had is asked for again: before a successor on the host's network, the
predecessor has it until it ends.
"""

import logging
from collections.abc import Callable
from typing import Final

import attrs
import h11
import trio

from csi import logkeys

log = logging.getLogger(__name__)

_PATH: Final = b"/metrics"
_CONNECTIONS: Final = 16
_DEADLINE_S: Final = 10.0
_CHUNK: Final = 4096
_RETRY_S: Final = 10.0
_METHODS: Final = (b"GET", b"HEAD")

Render = Callable[[str], tuple[bytes, str]]


@attrs.frozen(kw_only=True)
class Address:
    """Where to listen, as Go writes it: ``:8095``, ``127.0.0.1:8095``, ``[::1]:8095``.

    Attributes:
        host: None for all addresses of the machine.
    """

    host: str | None
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address that `text` means.

        Raises:
            ValueError: It has no such form.
        """
        host, colon, port = text.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if not (colon and port.isdecimal() and int(port) < 1 << 16) or (":" in bare) == (
            bare == host
        ):
            message = f"{text!r} is not an address; write :8095, 127.0.0.1:8095 or [::1]:8095"
            raise ValueError(message)
        return cls(host=bare or None, port=int(port))


async def serve_metrics(
    address: Address,
    render: Render,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer until cancelled; started, with the port, when it listens.

    Args:
        address: Where; with port 0 the machine chooses one.
        render: Returns body and content type for the header `Accept`.
        task_status: Told the port.
    """
    listeners = await _listen(address)
    port = int(listeners[0].socket.getsockname()[1])
    log.info("serving metrics", extra={logkeys.PORT: port})
    task_status.started(port)
    await trio.serve_listeners(Scrapes(render).handle, listeners)


async def _listen(address: Address) -> list[trio.SocketListener]:
    level = logging.ERROR
    while True:
        try:
            return await trio.open_tcp_listeners(address.port, host=address.host)
        except OSError as error:
            log.log(
                level,
                "cannot serve metrics, trying again: --metrics-addr: free the address, choose "
                "another one, or 0 for none",
                extra={logkeys.PORT: address.port, logkeys.ERROR: str(error)},
            )
        level = logging.DEBUG
        await trio.sleep(_RETRY_S)


class Scrapes:
    """Answers those who ask for the metrics."""

    def __init__(self, render: Render) -> None:
        """Answer with what `render` returns: body and content type for the header `Accept`."""
        self._render = render
        self._open = 0

    async def handle(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Answer one request; a connection too many is closed."""
        if self._open >= _CONNECTIONS:
            await trio.aclose_forcefully(stream)
            return
        self._open += 1
        try:
            with trio.move_on_after(_DEADLINE_S):
                await self._talk(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass  # somebody who went away, or who does not speak HTTP
        except Exception:
            log.exception("defect in serving metrics")
        finally:
            self._open -= 1
            await trio.aclose_forcefully(stream)

    async def _talk(self, stream: trio.abc.HalfCloseableStream) -> None:
        connection = h11.Connection(h11.SERVER)
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_CHUNK)))
        if isinstance(event, h11.Request):
            for part in self._answer(event):
                await stream.send_all(connection.send(part) or b"")
            await stream.send_eof()

    def _answer(self, request: h11.Request) -> list[h11.Event]:
        body, content_type = b"", "text/plain"
        if request.target.partition(b"?")[0] != _PATH:
            status = 404
        elif request.method not in _METHODS:
            status = 405
        else:
            status = 200
            body, content_type = self._render(_accept(request))
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        data = [] if request.method == b"HEAD" else [h11.Data(data=body)]
        return [h11.Response(status_code=status, headers=headers), *data, h11.EndOfMessage()]


def _accept(request: h11.Request) -> str:
    values = [value for name, value in request.headers if name == b"accept"]
    return b",".join(values).decode("latin-1")

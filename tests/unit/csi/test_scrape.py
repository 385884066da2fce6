"""The metrics over HTTP: what is answered, and that nobody can hold it up."""

from __future__ import annotations

import logging
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from csi.metrics import Metrics
from csi.scrape import Address, Scrapes, serve_metrics
from fakes.scraping import LOOPBACK, request, say
from fakes.virtualtime import virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MemoryReceiveStream, MemorySendStream


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """Serve a node server's metrics inside the block, at the port that is given."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_metrics, Address(host=LOOPBACK, port=0), Metrics().render)
        yield int(await nursery.start(serve))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":8095", Address(host=None, port=8095)),
        ("10.0.0.1:8095", Address(host="10.0.0.1", port=8095)),
        ("[::1]:80", Address(host="::1", port=80)),
        ("localhost:0", Address(host="localhost", port=0)),
    ],
)
def test_addresses_are_written_as_in_go(text: str, expected: Address) -> None:
    """With and without a host; IPv6 in brackets."""
    assert Address.parse(text) == expected


@pytest.mark.parametrize("text", ["8095", "::1:80", ":http", ":65536", ":-1", "[host]:80", ":"])
def test_other_addresses_are_refused(text: str) -> None:
    """The message shows what is right."""
    with pytest.raises(ValueError, match="write :8095"):
        Address.parse(text)


@pytest.mark.parametrize("target", ["/metrics", "/metrics?name=x"])
async def test_metrics_are_answered(target: str) -> None:
    """In the text format of old when nothing else is asked for."""
    async with listening() as port:
        head, _, body = (await say(port, request(target))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"content-type: text/plain; version=" in head.lower()
    assert b"\nnode_unpublish_total{" in body
    assert b"\nprocess_resident_memory_bytes " in body


async def test_openmetrics_are_answered_when_asked_for() -> None:
    """As Prometheus does; two headers count as one."""
    accept = "Accept: text/plain;q=0.1\r\nAccept: application/openmetrics-text;version=1.0.0\r\n"
    async with listening() as port:
        head, _, body = (await say(port, request(headers=accept))).partition(b"\r\n\r\n")
    assert b"application/openmetrics-text" in head
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (request("/"), b"404"),
        (request("/metrics/"), b"404"),
        (request("/debug/pprof"), b"404"),
        (request(method="POST", headers="Content-Length: 9\r\n"), b"405"),
        (request(method="HEAD"), b"200"),
    ],
)
async def test_nothing_else_is_served(text: bytes, status: bytes) -> None:
    """Other paths and methods get a status and no body."""
    async with listening() as port:
        head, _, body = (await say(port, text)).partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == status
    assert body == b""


@pytest.mark.parametrize(
    "text", [b"", b"\x16\x03\x01\x02\x00", b"GET /metrics HTTP/9\r\n\r\n", b"x" * 100_000]
)
async def test_nonsense_ends_its_connection_only(text: bytes) -> None:
    """TLS, other protocols, no end: the next one is answered."""
    async with listening() as port:
        with trio.move_on_after(5) as scope:
            try:
                stream = await trio.open_tcp_stream(LOOPBACK, port)
                async with stream:
                    await stream.send_all(text)
                    await stream.send_eof()
                    assert b"200" not in b"".join([part async for part in stream])
            except trio.BrokenResourceError:
                pass
        assert not scope.cancelled_caught
        assert (await say(port, request())).startswith(b"HTTP/1.1 200")


@virtual_time
async def test_defect_ends_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its trace, and the next one is heard."""

    def render(_: str) -> tuple[bytes, str]:
        raise ZeroDivisionError

    scrapes = Scrapes(render)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            ours, theirs = memory_stream_pair()
            nursery.start_soon(scrapes.handle, theirs)
            await ours.send_all(request())
            assert await ours.receive_some(1) == b""
    assert [record.message for record in caplog.records] == ["defect in serving metrics"] * 2


@virtual_time
async def test_silent_clients_keep_nobody_out() -> None:
    """Sixteen that say nothing, and one more is turned away; after ten seconds all are gone."""
    scrapes = Scrapes(Metrics().render)
    async with trio.open_nursery() as nursery:

        def connect() -> trio.StapledStream[MemorySendStream, MemoryReceiveStream]:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(scrapes.handle, theirs)
            return ours

        silent = [connect() for _ in range(16)]
        await wait_all_tasks_blocked()
        turned_away = connect()
        assert await turned_away.receive_some(1) == b""
        assert trio.current_time() == 0
        assert [await each.receive_some(1) for each in silent] == [b""] * 16
        assert trio.current_time() == 10
        heard = connect()
        await heard.send_all(request())
        assert (await heard.receive_some(12)).startswith(b"HTTP/1.1 200")


@virtual_time
async def test_taken_address_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    """The predecessor on the host's network has it until it ends; one error is enough."""
    caplog.set_level(logging.INFO, "csi.scrape")
    with socket.create_server((LOOPBACK, 0)) as predecessor:
        address = Address(host=LOOPBACK, port=int(predecessor.getsockname()[1]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_metrics, address, Metrics().render)
            await trio.sleep(60)
            [error] = caplog.records
            assert (error.levelno, vars(error)["port"]) == (logging.ERROR, address.port)
            assert "--metrics-addr" in error.message
            predecessor.close()
            await trio.sleep(11)
            assert [record.message for record in caplog.records[1:]] == ["serving metrics"]
            nursery.cancel_scope.cancel()

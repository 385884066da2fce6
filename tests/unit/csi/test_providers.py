"""The provider client against real sockets."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
import trio

from csi.errors import ProviderFailed, ProviderNotFound
from csi.providers import SocketProviders
from csi.records import MountCall, ObjectVersion, TargetPath
from fakes.providersocket import FakeProvider, mount_response, provider_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from provider._pb import v1alpha1_pb2

CALL = MountCall(
    attributes="{}",
    secrets="null",
    target=TargetPath("/target"),
    permission="420",
    current=(ObjectVersion("secret/a", "1"),),
)


@contextmanager
def _client(*directories: Path, timeout_s: float = 20.0) -> Iterator[SocketProviders]:
    client = SocketProviders(directories, max_reply_bytes=1 << 20, timeout_s=timeout_s)
    try:
        yield client
    finally:
        client.close()


async def test_call_and_reply_travel_whole(tmp_path: Path) -> None:
    """Every field of the call arrives, every field of the reply comes back."""
    with provider_at(tmp_path / "azure.sock") as provider, _client(tmp_path) as client:
        provider.answer = lambda *_: mount_response({"a/b": b"\0binary"}, mode=0o400, version="7")
        reply = await client.mount("azure", CALL)
    [request] = provider.requests
    assert (request.attributes, request.secrets, request.permission) == ("{}", "null", "420")
    assert request.target_path == "/target"
    [current] = request.current_object_version
    assert (current.id, current.version) == ("secret/a", "1")
    [file] = reply.files
    assert (file.path, file.mode, file.content) == ("a/b", 0o400, b"\0binary")
    assert reply.versions == (ObjectVersion("secret/a/b", "7"),)


async def test_directories_are_searched_in_order(tmp_path: Path) -> None:
    """The first directory that has the socket wins; one that is missing is passed over."""
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    with (
        provider_at(first / "azure.sock") as preferred,
        provider_at(second / "azure.sock") as other,
        _client(tmp_path / "missing", first, second) as client,
    ):
        await client.mount("azure", CALL)
    assert (len(preferred.requests), len(other.requests)) == (1, 0)


async def test_moved_socket_is_found_again(tmp_path: Path) -> None:
    """A provider that comes back in another directory is used without a restart of ours."""
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    with _client(first, second) as client:
        with provider_at(second / "azure.sock"):
            await client.mount("azure", CALL)
        (second / "azure.sock").unlink()
        with pytest.raises(ProviderNotFound):
            await client.mount("azure", CALL)
        with provider_at(first / "azure.sock") as provider:
            await client.mount("azure", CALL)
        assert len(provider.requests) == 1


async def test_replaced_socket_gets_the_next_call(tmp_path: Path) -> None:
    """A successor at the same path gets new calls at once; what is under way is finished."""
    path = tmp_path / "azure.sock"
    old, new = FakeProvider(), FakeProvider()
    entered, leave = threading.Event(), threading.Event()

    def wait(*_: object) -> v1alpha1_pb2.MountResponse:
        entered.set()
        leave.wait()
        return mount_response({"a": b"from the old one"})

    old.answer = wait
    replies = []
    with provider_at(path, old), _client(tmp_path) as client:
        async with trio.open_nursery() as nursery:

            async def slow() -> None:
                replies.append(await client.mount("azure", CALL))

            nursery.start_soon(slow)
            assert await trio.to_thread.run_sync(entered.wait, 10)
            with provider_at(path, new):
                await client.mount("azure", CALL)
            leave.set()
    assert len(new.requests) == 1
    assert [file.content for file in replies[0].files] == [b"from the old one"]


async def test_silent_provider_ends_with_the_timeout(tmp_path: Path) -> None:
    """A provider that does not answer is given up on, by name."""
    with socket.socket(socket.AF_UNIX) as listener, _client(tmp_path, timeout_s=0.3) as client:
        listener.bind(str(tmp_path / "azure.sock"))
        listener.listen()
        with pytest.raises(ProviderFailed, match=r"within 0\.3 s"):
            await client.mount("azure", CALL)


async def test_dead_socket_is_unavailable(tmp_path: Path) -> None:
    """A socket that nobody listens at is Unavailable after a few quick attempts."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "azure.sock"))
    with _client(tmp_path) as client, trio.fail_after(10), pytest.raises(ProviderFailed) as caught:
        await client.mount("azure", CALL)
    assert caught.value.code == "UNAVAILABLE"


async def test_brief_unavailability_is_ridden_out(tmp_path: Path) -> None:
    """A provider that says Unavailable once is asked again before anybody notices."""
    with provider_at(tmp_path / "azure.sock") as provider, _client(tmp_path) as client:
        answer = provider.answer

        def stumble(_: object, context: grpc.ServicerContext) -> v1alpha1_pb2.MountResponse:
            provider.answer = answer
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")

        provider.answer = stumble
        await client.mount("azure", CALL)
    assert len(provider.requests) == 2


async def test_authority_on_the_wire_is_localhost(tmp_path: Path) -> None:
    """Providers built on grpc-go reject any other authority."""
    with socket.socket(socket.AF_UNIX) as listener, _client(tmp_path, timeout_s=5) as client:
        listener.bind(str(tmp_path / "azure.sock"))
        listener.listen()
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(ProviderFailed):
                    await client.mount("azure", CALL)

            nursery.start_soon(call)
            seen = await trio.to_thread.run_sync(_first_bytes, listener)
            nursery.cancel_scope.cancel()
    assert b":authority\tlocalhost" in seen
    assert b"/v1alpha1.CSIDriverProvider/Mount" in seen


def _first_bytes(listener: socket.socket) -> bytes:
    """Play an HTTP/2 server up to the headers of the first request."""
    listener.settimeout(10)
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(10)
        connection.sendall(b"\0\0\0\x04\0\0\0\0\0")  # empty SETTINGS
        seen = b""
        while b":authority" not in seen or b"CSIDriverProvider/Mount" not in seen:
            seen += connection.recv(65536)
        return seen


async def test_cancelled_call_is_cancelled_at_the_provider(tmp_path: Path) -> None:
    """A task that goes away takes its call with it."""
    entered, over = threading.Event(), threading.Event()

    def wait(_: object, context: grpc.ServicerContext) -> v1alpha1_pb2.MountResponse:
        context.add_callback(over.set)
        entered.set()
        over.wait()
        return mount_response({"a": b""})

    with provider_at(tmp_path / "azure.sock") as provider, _client(tmp_path) as client:
        provider.answer = wait
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.mount, "azure", CALL)
            assert await trio.to_thread.run_sync(entered.wait, 10)
            nursery.cancel_scope.cancel()
        assert await trio.to_thread.run_sync(over.wait, 10)

"""When a node server says that it is ready, as a probe sees it."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest
import trio

from csi import app
from csi._pb import csi_pb2_grpc, pluginregistration_pb2, pluginregistration_pb2_grpc
from csi.errors import SocketError
from csi.readiness import Need, Readiness
from fakes.keeper import FakeKeeper
from fakes.kubelet import publish_message, unpublish_message
from fakes.nodeserver import config_for, served, write_class
from fakes.polling import poll_value
from fakes.providersocket import mount_response, provider_at
from harness.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from provider._pb import v1alpha1_pb2

DRIVER = "secrets-store.csi.k8s.io"


def tell(socket: Path, *, refusal: str = "") -> None:
    """Tell the driver, as kubelet does, whether it is registered."""
    status = pluginregistration_pb2.RegistrationStatus(plugin_registered=not refusal, error=refusal)
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        stub = pluginregistration_pb2_grpc.RegistrationStub(channel)
        stub.NotifyRegistrationStatus(status, timeout=10)


def is_there(file: Path) -> bool:
    """Look for the file, as `test -e` does."""
    return file.exists()


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """Provide the path of the ready file, in a folder of its own."""
    (tmp_path / "ready").mkdir()
    (tmp_path / "plugins").mkdir()
    return tmp_path / "ready" / "csi"


async def test_ready_is_a_session_with_the_keeper(tmp_path: Path, ready: Path) -> None:
    """The file comes with the session, goes with it, comes back, and is gone at the end."""
    keeper = FakeKeeper()
    async with served(tmp_path, keeper, ready_file=ready):
        await poll_value(ready.exists, expected=True)
        keeper.listening = False
        keeper.disconnect()
        await poll_value(ready.exists, expected=False)
        keeper.listening = True
        await poll_value(ready.exists, expected=True)
    assert not is_there(ready)


async def test_file_of_a_killed_predecessor_goes(tmp_path: Path, ready: Path) -> None:
    """It says nothing about the one that starts."""
    await trio.to_thread.run_sync(ready.touch)
    keeper = FakeKeeper()
    keeper.listening = False
    async with served(tmp_path, keeper, ready_file=ready):
        assert not is_there(ready)


async def test_file_of_who_cannot_even_start_goes(tmp_path: Path, ready: Path) -> None:
    """A program that fails again and again is never taken for ready."""
    await trio.to_thread.run_sync(ready.touch)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with served(tmp_path, ready_file=ready, csi_socket=tmp_path / "none" / "csi.sock"):
            pass
    assert caught.group_contains(SocketError)
    assert not is_there(ready)


async def test_superseded_server_is_not_ready(tmp_path: Path, ready: Path) -> None:
    """Another one serves kubelet now, for good."""
    keeper = FakeKeeper()
    async with served(tmp_path, keeper, ready_file=ready) as here:
        await poll_value(ready.exists, expected=True)
        await here.call(here.node.NodeUnpublishVolume, unpublish_message())  # connects
        here.config.csi_socket.unlink()
        async with keeper.connect():
            await here.fails(here.node.NodeUnpublishVolume, unpublish_message())
            await poll_value(ready.exists, expected=False)


async def test_older_server_supersedes_nobody(tmp_path: Path, ready: Path) -> None:
    """One that came to a new keeper last, and is not who serves kubelet, is not obeyed for long."""
    keeper = FakeKeeper()
    async with served(tmp_path, keeper, ready_file=ready) as here:
        await poll_value(ready.exists, expected=True)
        async with keeper.connect():
            await here.call(here.node.NodeUnpublishVolume, unpublish_message())
            await poll_value(ready.exists, expected=True)


async def test_ready_takes_kubelets_word_for_it(tmp_path: Path, ready: Path) -> None:
    """Where registration is wanted: refused is not ready, accepted later is."""
    plugins = tmp_path / "plugins"
    socket = plugins / f"{DRIVER}-reg.sock"
    async with served(tmp_path, registration_dir=plugins, ready_file=ready):
        await poll_value(socket.exists, expected=True)
        assert not is_there(ready)
        await trio.to_thread.run_sync(tell, socket)
        await poll_value(ready.exists, expected=True)
        await trio.to_thread.run_sync(lambda: tell(socket, refusal="name is taken"))
        await poll_value(ready.exists, expected=False)
        await trio.to_thread.run_sync(tell, socket)
        await poll_value(ready.exists, expected=True)


async def test_file_goes_before_the_last_call_ends(tmp_path: Path, ready: Path) -> None:
    """On the way out nobody shall count on the server, which still answers what it has begun."""
    asked, stop = trio.Event(), trio.Event()
    config = config_for(tmp_path, ready_file=ready)
    write_class(tmp_path)

    def answer(*_: object) -> v1alpha1_pb2.MountResponse:
        trio.from_thread.run_sync(asked.set, trio_token=token)
        eventually(lambda: not ready.exists(), "the ready file is gone")
        return mount_response({"password": b"first"})

    def publish() -> None:
        with grpc.insecure_channel(f"unix:{config.csi_socket}") as channel:
            csi_pb2_grpc.NodeStub(channel).NodePublishVolume(publish_message(), timeout=20)

    token = trio.lowlevel.current_trio_token()
    serve = partial(app.serve, config, connect_keeper=FakeKeeper().connect, stop=stop)
    with provider_at(tmp_path / "azure.sock") as provider:
        provider.answer = answer
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            await poll_value(ready.exists, expected=True)
            nursery.start_soon(trio.to_thread.run_sync, publish)
            await asked.wait()
            stop.set()


def test_reasons_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each change once, with all that is wanting."""
    caplog.set_level(logging.INFO, "csi.readiness")
    readiness = Readiness(tmp_path / "ready", {Need.KEEPER, Need.REGISTRATION})
    with readiness.showing():
        for met in (True, True, False, False):
            for need in (Need.KEEPER, Need.REGISTRATION):
                readiness.note(need, met=met)
    assert [record.message for record in caplog.records] == ["ready", "not ready any more"]
    assert vars(caplog.records[-1])["wanting"] == "a session with the keeper"


def test_unwritable_file_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full or vanished folder is an error in the log; the server goes on."""
    readiness = Readiness(tmp_path / "gone" / "ready", {Need.KEEPER})
    with readiness.showing():
        readiness.note(Need.KEEPER, met=True)
    assert "--ready-file" in caplog.text

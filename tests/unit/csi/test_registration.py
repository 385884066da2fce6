"""Registration with kubelet: the socket, when it is there, what is said."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
import pytest
import trio
import trio.testing

from csi._pb import pluginregistration_pb2, pluginregistration_pb2_grpc
from csi.registration import OnOutcome, registered
from fakes.keeper import FakeKeeper
from fakes.nodeserver import served

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

DRIVER = "secrets-store.csi.k8s.io"


def _ask(path: Path) -> pluginregistration_pb2.PluginInfo:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = pluginregistration_pb2_grpc.RegistrationStub(channel)
        return stub.GetInfo(pluginregistration_pb2.InfoRequest(), timeout=10)


def _tell(path: Path, *, error: str) -> None:
    status = pluginregistration_pb2.RegistrationStatus(plugin_registered=not error, error=error)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = pluginregistration_pb2_grpc.RegistrationStub(channel)
        stub.NotifyRegistrationStatus(status, timeout=10)


def announced(
    directory: Path, driver_name: str = DRIVER, on_outcome: OnOutcome = lambda _: None
) -> AbstractAsyncContextManager[None]:
    """Announce a driver, whose CSI socket is in a folder of its own."""
    plugin = directory / driver_name
    plugin.mkdir(exist_ok=True)
    return registered(
        directory,
        driver_name=driver_name,
        csi_socket=plugin / "csi.sock",
        kubelet_csi_socket=str(plugin / "csi.sock"),
        on_outcome=on_outcome,
    )


def link_of(directory: Path) -> tuple[int, str]:
    """Return which link kubelet finds, and where it leads."""
    path = directory / f"{DRIVER}-reg.sock"
    return path.lstat().st_ino, str(path.readlink())


async def test_kubelet_learns_name_and_socket(tmp_path: Path) -> None:
    """GetInfo names the type, the driver, the CSI socket as kubelet sees it, and a version."""
    endpoint = str(tmp_path / DRIVER / "csi.sock")
    async with announced(tmp_path):
        info = await trio.to_thread.run_sync(_ask, tmp_path / f"{DRIVER}-reg.sock")
    assert (info.type, info.name, info.endpoint) == ("CSIPlugin", DRIVER, endpoint)
    assert list(info.supported_versions) == ["1.0.0"]
    assert os.listdir(tmp_path) == [DRIVER]  # noqa: PTH208 - short and synchronous
    assert os.listdir(tmp_path / DRIVER) == []  # noqa: PTH208


async def test_successor_keeps_the_link(tmp_path: Path) -> None:
    """Kubelet sees no new plugin when a node server follows another, and none goes."""
    outcomes: list[bool] = []
    async with AsyncExitStack() as stack:
        predecessor = AsyncExitStack()
        async with predecessor:
            await predecessor.enter_async_context(announced(tmp_path))
            found = link_of(tmp_path)
            await stack.enter_async_context(announced(tmp_path, on_outcome=outcomes.append))
        assert link_of(tmp_path) == found
        assert outcomes == [True]
        info = await trio.to_thread.run_sync(_ask, tmp_path / f"{DRIVER}-reg.sock")
        assert info.name == DRIVER


async def test_socket_of_a_killed_process_is_known(tmp_path: Path) -> None:
    """Kubelet keeps a driver whose process was killed, so its successor keeps the link."""
    async with announced(tmp_path):
        dead = tmp_path / DRIVER / "registration.sock"
        link = tmp_path / f"{DRIVER}-reg.sock"
        dead.rename(dead.with_name("aside"))
    dead.with_name("aside").rename(dead)
    assert link.is_symlink()
    found = link_of(tmp_path)
    async with announced(tmp_path):
        assert link_of(tmp_path) == found


@pytest.mark.parametrize("leftover", ["nothing", "dangling link", "foreign socket", "other link"])
async def test_unknown_driver_is_a_new_plugin(tmp_path: Path, leftover: str) -> None:
    """What kubelet does not know from before is put there anew; nobody calls it taken."""
    outcomes: list[bool] = []
    link = tmp_path / f"{DRIVER}-reg.sock"
    (tmp_path / DRIVER).mkdir()
    target = tmp_path / DRIVER / "registration.sock"
    if leftover == "foreign socket":
        with socket.socket(socket.AF_UNIX) as foreign:
            foreign.bind(str(link))
    elif leftover == "other link":
        target.touch()
        link.symlink_to("/elsewhere/registration.sock")
    elif leftover == "dangling link":
        link.symlink_to(target)
    before = link.lstat().st_ino if link.is_symlink() or link.exists() else None
    async with announced(tmp_path, on_outcome=outcomes.append):
        inode, text = link_of(tmp_path)
        assert (inode != before, text) == (True, str(target))
        assert outcomes == []


async def test_leaving_process_spares_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A successor whose socket appears while the link is being removed gets it back."""
    target = tmp_path / DRIVER / "registration.sock"
    link = tmp_path / f"{DRIVER}-reg.sock"
    unlink = type(link).unlink

    def successor_comes(path: Path, **options: bool) -> None:
        unlink(path, **options)
        if path == link:
            target.touch()

    async with announced(tmp_path):
        monkeypatch.setattr(type(link), "unlink", successor_comes)
    monkeypatch.undo()
    assert str(link.readlink()) == str(target)


@pytest.mark.parametrize(("error", "level"), [("", logging.INFO), ("name is taken", logging.ERROR)])
async def test_outcome_of_the_registration_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: str, level: int
) -> None:
    """A refusal is an error with kubelet's reason and the driver's name; success is news."""
    with caplog.at_level(logging.INFO, "csi.registration"):
        async with announced(tmp_path):
            path = tmp_path / f"{DRIVER}-reg.sock"
            await trio.to_thread.run_sync(lambda: _tell(path, error=error))
    [record] = [each for each in caplog.records if each.name == "csi.registration"]
    assert record.levelno == level
    assert vars(record)["driver"] == DRIVER
    assert vars(record).get("error", "") == error


async def test_refusal_says_who_holds_the_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other driver's endpoint and socket, whatever else there is in the directory."""
    (tmp_path / "notes.txt").touch()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "a-dead-reg.sock"))
    ours = tmp_path / f"{DRIVER}-reg.sock"
    async with AsyncExitStack() as stack:
        for path, name in (("x", DRIVER), ("y", "disk.csi.example"), ("", DRIVER)):
            directory = tmp_path / path
            directory.mkdir(exist_ok=True)
            await stack.enter_async_context(announced(directory, name))
            if path:
                (directory / f"{name}-reg.sock").rename(tmp_path / f"{path}-reg.sock")
        await trio.to_thread.run_sync(lambda: _tell(ours, error="already registered"))
    endpoint = tmp_path / "x" / DRIVER / "csi.sock"
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert vars(record)["holder"] == f"{endpoint} (of x-reg.sock)"


async def test_unknown_holder_is_said_to_be_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Kubelet may know a driver whose socket has gone."""
    async with announced(tmp_path):
        path = tmp_path / f"{DRIVER}-reg.sock"
        await trio.to_thread.run_sync(lambda: _tell(path, error="already registered"))
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert vars(record)["holder"] == "not found"


async def test_registration_waits_for_the_first_keeper(tmp_path: Path) -> None:
    """Kubelet does not hear of the driver before volumes can be published, and never loses it."""
    keeper = FakeKeeper()
    keeper.listening = False
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    path = plugins / f"{DRIVER}-reg.sock"
    async with served(tmp_path, keeper, registration_dir=plugins):
        assert not path.exists()
        keeper.listening = True
        with trio.fail_after(10):
            while not path.exists():  # noqa: ASYNC110 - another process would look like this, too
                await trio.sleep(0.01)
        info = await trio.to_thread.run_sync(_ask, path)
        assert info.endpoint == str(tmp_path / "csi.sock")
        keeper.listening = False
        keeper.disconnect()
        await trio.testing.wait_all_tasks_blocked()
        assert path.exists()
    assert os.listdir(plugins) == []  # noqa: PTH208 - short and synchronous

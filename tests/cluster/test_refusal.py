"""The name of a driver is taken: kubelet refuses, and the node server says so and is not ready."""

from __future__ import annotations

import logging
import shutil
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from cluster.sources import until
from csi import app
from fakes.keeper import FakeKeeper
from fakes.nodeserver import config_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from cluster.cluster import Cluster

DRIVER: Final = "taken.csi.test"
REGISTRY: Final = "/var/lib/kubelet/plugins_registry"
PLUGINS: Final = "/var/lib/kubelet/plugins"


@asynccontextmanager
async def node_server(cluster: Cluster, name: str) -> AsyncIterator[Path]:
    """Run a node server with its sockets on the node, inside the block; provide their folder."""
    folder, stop = cluster.node.path(f"{PLUGINS}/{name}"), trio.Event()
    folder.mkdir(parents=True)
    config = config_for(
        folder,
        driver_name=DRIVER,
        kubelet_csi_socket=f"{PLUGINS}/{name}/csi.sock",
        registration_dir=cluster.node.path(REGISTRY),
        ready_file=folder / "ready",
    )
    serve = partial(app.serve, config, connect_keeper=FakeKeeper().connect, stop=stop)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        yield folder
        stop.set()
    shutil.rmtree(folder)


async def test_holder_of_the_name_is_told(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the other driver's socket; once that has gone, kubelet takes ours."""
    caplog.set_level(logging.INFO, "csi.registration")
    registry = cluster.node.path(REGISTRY)

    def told(message: str) -> list[logging.LogRecord]:
        return [record for record in caplog.records if message in record.message]

    async with node_server(cluster, "holder") as holder:
        await until((holder / "ready").exists)
        # It becomes a driver that announces itself as others do, by a socket of any name.
        (registry / f"{DRIVER}-reg.sock").unlink()
        (registry / "holder-reg.sock").hardlink_to(holder / "registration.sock")
        await until(lambda: len(told("registered with kubelet")) == 2)
        async with node_server(cluster, "second") as second:
            await until(lambda: bool(told("kubelet refused")))
            assert not (second / "ready").exists()
            said = vars(told("kubelet refused")[-1])
            assert said["holder"] == f"{PLUGINS}/holder/csi.sock (of holder-reg.sock)"
            assert "Another driver with the same name" in said["error"]
            (registry / "holder-reg.sock").unlink()
            await until((second / "ready").exists)

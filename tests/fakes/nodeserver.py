"""The node server in one process with a test: fakes below it, virtual time or real sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import grpc
import trio

from csi import app
from csi._pb import csi_pb2_grpc
from csi.config import Config
from fakes.keeper import FakeKeeper
from fakes.kubelet import ROOT
from fakes.sources import FakeClasses, FakeProviders

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Reply = TypeVar("Reply")

_CALL_TIMEOUT_S: Final = 20.0


def config_for(directory: Path = Path("/nowhere"), **changes: Any) -> Config:  # noqa: ANN401
    """Return a configuration whose sockets and classes are in `directory`."""
    base = Config(
        csi_socket=directory / "csi.sock",
        node_id="node-1",
        driver_name="secrets-store.csi.k8s.io",
        keeper_socket=directory / "keeper.sock",
        kubelet_root=ROOT,
        kubelet_csi_socket=str(directory / "csi.sock"),
        registration_dir=None,
        metrics_address=None,
        ready_file=None,
        class_dir=directory / "classes",
        kubeconfig=None,
        provider_dirs=(directory,),
        max_reply_bytes=4 << 20,
        rotation=True,
        poll_interval=120.0,
        poll_interval_floor=10.0,
        rotation_jitter=0.0,
        class_change_spread=0.0,
        threads=8,
        provider_timeout=60.0,
    )
    return attrs.evolve(base, **changes)


@attrs.frozen(kw_only=True)
class World:
    """The parts that know volumes, over fakes, without a socket."""

    core: app.Core
    keeper: FakeKeeper
    classes: FakeClasses
    providers: FakeProviders

    def check(self) -> None:
        """Check what must hold whenever nothing is under way."""
        self.core.registry.check_invariants()
        self.core.schedule.check_invariants()


@asynccontextmanager
async def world(
    keeper: FakeKeeper | None = None,
    providers: FakeProviders | None = None,
    **changes: Any,  # noqa: ANN401
) -> AsyncIterator[World]:
    """Run the parts that know volumes inside the block; a class "vault" exists."""
    keeper, classes = keeper or FakeKeeper(), FakeClasses()
    providers = providers or FakeProviders()
    classes.put()
    core = app.wire(
        config_for(**changes), connect_keeper=keeper.connect, classes=classes, providers=providers
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.run)
        try:
            yield World(core=core, keeper=keeper, classes=classes, providers=providers)
        finally:
            nursery.cancel_scope.cancel()
            core.registry.close()


@attrs.frozen(kw_only=True)
class Served:
    """A node server on real sockets, with a client."""

    config: Config
    keeper: FakeKeeper
    channel: grpc.Channel

    async def call(
        self, method: Callable[..., Reply], request: object, *, timeout_s: float = _CALL_TIMEOUT_S
    ) -> Reply:
        """Make a call without blocking the loop that answers it."""
        return await trio.to_thread.run_sync(lambda: method(request, timeout=timeout_s))

    async def fails(
        self, method: Callable[..., object], request: object, *, timeout_s: float = _CALL_TIMEOUT_S
    ) -> tuple[str, str]:
        """Make a call that must fail; return the name of its code and its message."""
        try:
            await self.call(method, request, timeout_s=timeout_s)
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        message = "the call succeeded"
        raise AssertionError(message)

    @property
    def node(self) -> csi_pb2_grpc.NodeStub:
        """The Node service."""
        return csi_pb2_grpc.NodeStub(self.channel)

    @property
    def identity(self) -> csi_pb2_grpc.IdentityStub:
        """The Identity service."""
        return csi_pb2_grpc.IdentityStub(self.channel)

    @property
    def controller(self) -> csi_pb2_grpc.ControllerStub:
        """The Controller service."""
        return csi_pb2_grpc.ControllerStub(self.channel)


@asynccontextmanager
async def served(
    directory: Path,
    keeper: FakeKeeper | None = None,
    **changes: Any,  # noqa: ANN401
) -> AsyncIterator[Served]:
    """Serve on real sockets in `directory` inside the block."""
    keeper, config = keeper or FakeKeeper(), config_for(directory, **changes)
    (directory / "classes").mkdir(exist_ok=True)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(app.serve, config, connect_keeper=keeper.connect, stop=stop))
        channel = grpc.insecure_channel(
            f"unix:{config.csi_socket}",
            options=[
                ("grpc.default_authority", "localhost"),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        try:
            yield Served(config=config, keeper=keeper, channel=channel)
        finally:
            channel.close()
            stop.set()


def write_class(
    directory: Path,
    name: str = "vault",
    *,
    namespace: str = "shop",
    provider: str = "azure",
    parameters: str = '{keyvaultName: "kv"}',
) -> Path:
    """Write a SecretProviderClass into the directory of a `served` node server."""
    path = directory / "classes" / f"{namespace}-{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    hidden.write_text(
        "apiVersion: secrets-store.csi.x-k8s.io/v1\n"
        "kind: SecretProviderClass\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {{provider: {provider}, parameters: {parameters}}}\n"
    )
    hidden.rename(path)
    return path

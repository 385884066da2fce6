"""The node server as a whole: everything is opened here, in order, and closed in reverse.

Tasks: recovery (holds the session with the keeper), the refresh loop, with a cluster the watches of
classes and the writer of pod statuses, one that serves metrics, one that registers with kubelet
once there has been a session, and one that waits for a signal. grpcio's threads come in through the
bridge.
"""

import logging
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from functools import partial

import attrs
import trio

from csi import logkeys, servicers
from csi.bridge import Bridge
from csi.classes import ClassDirectory, ClassSource
from csi.cluster import Cluster
from csi.config import Config, version
from csi.delivery import Delivery, RotationPolicy, no_user_namespace
from csi.fetch import Fetcher
from csi.identity import Identity
from csi.keeper import Connect, Keeper, KeeperLink
from csi.locks import VolumeLocks
from csi.metrics import Metrics
from csi.node import Node, wait_for_nothing
from csi.providers import ProviderClient, SocketProviders
from csi.readiness import Need, Readiness
from csi.recovery import Recovery
from csi.refresh import Refresher
from csi.registration import registered
from csi.schedule import Schedule
from csi.scrape import serve_metrics
from csi.server import serving
from csi.sockets import Claim
from csi.successor import Successor
from csi.volumes import Registry
from fusefs.backup import Backups
from fusefs.client import connect
from fusefs.errors import Superseded

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Core:
    """The parts that know volumes, wired together; without sockets of ours."""

    link: KeeperLink
    registry: Registry
    schedule: Schedule
    locks: VolumeLocks
    refresher: Refresher
    recovery: Recovery
    node: Node
    metrics: Metrics
    cluster: Cluster | None

    async def run(self) -> None:
        """Hold the session with the keeper and refresh volumes, until cancelled or superseded."""
        async with trio.open_nursery() as nursery:
            if self.cluster is not None:
                nursery.start_soon(self.cluster.run)
            nursery.start_soon(self.refresher.run)
            await self.recovery.run()
            # Statuses are the successor's now; ours would overwrite them with older versions.
            nursery.cancel_scope.cancel()


def wire(
    config: Config,
    *,
    connect_keeper: Connect,
    classes: ClassSource | Cluster,
    providers: ProviderClient,
    abandon: Callable[[], None] = lambda: None,
) -> Core:
    """Build the parts. Nothing is opened.

    Args:
        config: The flags.
        connect_keeper: Opens a session with the keeper.
        classes: Where classes come from; a cluster also knows the pods.
        providers: Where content comes from.
        abandon: Lets go of every mount when no keeper comes to serve it.
    """
    cluster = classes if isinstance(classes, Cluster) else None
    source = classes.classes if isinstance(classes, Cluster) else classes
    link = KeeperLink(connect_keeper, abandon=abandon)
    registry = cluster.registry if cluster else Registry()
    schedule = Schedule(node=config.node_id, jitter=config.rotation_jitter)
    locks = VolumeLocks()
    metrics = Metrics()
    delivery = Delivery(
        registry=registry,
        schedule=schedule,
        fetcher=Fetcher(source, providers),
        rotation=RotationPolicy(
            enabled=config.rotation,
            interval=config.poll_interval,
            floor=config.poll_interval_floor,
        ),
        filesystem=config.filesystem,
        user_namespace=cluster.user_namespaces.has_one if cluster else no_user_namespace,
        on_changed=cluster.statuses.note if cluster else None,
    )
    refresher = Refresher(
        link=link,
        registry=registry,
        schedule=schedule,
        locks=locks,
        delivery=delivery,
        metrics=metrics,
        initial_interval=config.poll_interval if config.rotation else None,
        class_spread=config.class_change_spread,
    )
    if cluster is not None:
        cluster.on_class_changed = refresher.class_changed
    return Core(
        link=link,
        registry=registry,
        schedule=schedule,
        locks=locks,
        refresher=refresher,
        recovery=Recovery(
            link=link, registry=registry, locks=locks, delivery=delivery, refresher=refresher
        ),
        node=Node(
            node_id=config.node_id,
            link=link,
            registry=registry,
            locks=locks,
            delivery=delivery,
            refresher=refresher,
            settled=cluster.statuses.settled if cluster else wait_for_nothing,
        ),
        metrics=metrics,
        cluster=cluster,
    )


async def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = trio.Event()
    with closing(Backups()) as backups:
        async with trio.open_nursery() as nursery:
            await nursery.start(_wait_for_signal, stop)
            connect_keeper = partial(_connect, config, backups)
            await serve(config, connect_keeper=connect_keeper, stop=stop, abandon=backups.close)
            nursery.cancel_scope.cancel()
    log.info("stopped")


async def serve(
    config: Config,
    *,
    connect_keeper: Connect,
    stop: trio.Event,
    abandon: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set; started when the CSI socket is there."""
    classes = _classes(config)
    providers = SocketProviders(
        config.provider_dirs,
        max_reply_bytes=config.max_reply_bytes,
        timeout_s=config.provider_timeout,
    )
    core = wire(
        config,
        connect_keeper=connect_keeper,
        classes=classes,
        providers=providers,
        abandon=abandon,
    )
    readiness = _readiness(config, core.link)
    try:
        with readiness.showing():
            async with trio.open_nursery() as nursery:
                if config.metrics_address is not None:
                    nursery.start_soon(serve_metrics, config.metrics_address, core.metrics.render)
                async with (
                    _csi_server(config, core) as claim,
                    trio.open_nursery() as registering,
                ):
                    # A newer node server would have its socket at our path before it connects.
                    core.link.is_newest = claim.is_held
                    # Only now: the predecessor hands on to us what it cannot finish from then on.
                    nursery.start_soon(core.run)
                    registering.start_soon(_register, config, core.link, readiness)
                    readiness.note(Need.SERVING, met=True)
                    task_status.started()
                    await stop.wait()
                    readiness.note(Need.SERVING, met=False)
                    registering.cancel_scope.cancel()
                nursery.cancel_scope.cancel()
    finally:
        providers.close()
        core.registry.close()


def _classes(config: Config) -> ClassSource | Cluster:
    if config.class_dir is not None:
        return ClassDirectory(config.class_dir)
    # The official client takes 40 MiB and half a second, which only a cluster is worth.
    from csi.kube import KubeApi  # noqa: PLC0415

    api = KubeApi.load(config.kubeconfig)
    return Cluster(api, node_id=config.node_id, watching=config.rotation)


def _readiness(config: Config, link: KeeperLink) -> Readiness:
    needs = {*Need} if config.registration_dir else {*Need} - {Need.REGISTRATION}
    readiness = Readiness(config.ready_file, needs)
    link.on_changed = lambda: readiness.note(Need.KEEPER, met=link.connected)
    return readiness


def _csi_server(config: Config, core: Core) -> AbstractAsyncContextManager[Claim]:
    identity = Identity(driver_name=config.driver_name, version=version(), link=core.link)
    register = partial(
        servicers.register,
        identity=identity,
        node=core.node,
        bridge=Bridge(trio.lowlevel.current_trio_token()),
        metrics=core.metrics,
        successor=Successor(config.csi_socket),
        kubelet_root=config.kubelet_root,
    )
    return serving(
        config.csi_socket,
        register,
        threads=config.threads,
        slow_methods=frozenset({servicers.PUBLISH_METHOD}),
    )


def _connect(config: Config, backups: Backups) -> AbstractAsyncContextManager[Keeper]:
    return connect(str(config.keeper_socket), backups=backups)


async def _register(config: Config, link: KeeperLink, readiness: Readiness) -> None:
    """Let kubelet find the driver, from the first session with a keeper on."""
    if config.registration_dir is None:
        return
    try:
        await link.next_session()
    except Superseded:
        return
    async with registered(
        config.registration_dir,
        driver_name=config.driver_name,
        csi_socket=config.csi_socket,
        kubelet_csi_socket=config.kubelet_csi_socket,
        on_outcome=lambda accepted: readiness.note(Need.REGISTRATION, met=accepted),
    ):
        await trio.sleep_forever()


async def _wait_for_signal(
    stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("stopping", extra={logkeys.METHOD: signal.Signals(number).name})
            stop.set()

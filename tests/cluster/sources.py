"""A node server without its sockets, in this process, with a real API server.

It has the chart's service account, and below it a keeper and providers in memory. Its pods are
never scheduled: only their objects matter.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import trio
import yaml

from cluster import network
from cluster.addresses import ADDRESS, API_PORT
from cluster.driver import NAMESPACE, NODE_SERVER
from cluster.volumes import provider_class
from csi import app
from csi.cluster import Cluster as Sources
from csi.errors import ClassNotFound
from csi.kube import KubeApi
from csi.records import (
    CLASS_KEY,
    POD_NAME_KEY,
    POD_NAMESPACE_KEY,
    POD_UID_KEY,
    Credentials,
    PublishRequest,
    TargetPath,
    UnpublishRequest,
    VolumeId,
    VolumeSpec,
)
from fakes.keeper import FakeKeeper
from fakes.kubelet import ROOT
from fakes.nodeserver import config_for
from fakes.polling import PAUSE_S, poll
from fakes.sources import FakeProviders

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from cluster.api import Thing
    from cluster.cluster import Cluster

GROUP: Final = "secrets-store.csi.x-k8s.io"
HERE: Final = "sources-here"
ELSEWHERE: Final = "sources-elsewhere"
PATIENCE_S: Final = 120.0  # the collector of garbage looks for new kinds every half minute

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Server:
    """The node server, and the administrator beside it.

    Attributes:
        core: The node server.
        api: Its calls.
        way: How it reaches the API server.
        keeper: Below it.
        providers: Below it.
        admin: Who changes objects.
    """

    core: app.Core
    api: KubeApi
    way: network.Way
    keeper: FakeKeeper
    providers: FakeProviders
    admin: Cluster

    @property
    def watched(self) -> frozenset[str]:
        """The namespaces whose classes it watches."""
        assert self.core.cluster is not None
        return self.core.cluster.classes.watched

    async def publish(self, pod: Thing, class_name: str = "vault") -> VolumeSpec:
        """Publish a volume of a pod, as kubelet does."""
        request = publish_of(pod, class_name)
        await self.core.node.publish(request)
        return request.spec

    async def unpublish(self, spec: VolumeSpec) -> None:
        """Take a volume away, as kubelet does."""
        request = UnpublishRequest(volume_id=spec.volume_id, target=spec.target)
        await self.core.node.unpublish(request)

    async def find_class(self, name: str) -> None:
        """Look a class up as a publish does; return if it is there."""
        assert self.core.cluster is not None
        await self.core.cluster.classes.get(HERE, name)

    async def told(self, vault: str) -> None:
        """Return when the provider has been asked for what an edited class says."""
        text = f'"keyvaultName":"{vault}"'
        await until(lambda: any(text in call.attributes for _, call in self.providers.calls))

    async def forgotten(self, name: str) -> None:
        """Return when there is no such class any more, as far as the node server knows."""

        async def unknown() -> bool:
            try:
                await self.find_class(name)
            except ClassNotFound:
                return True
            return False

        await poll(unknown)

    async def status(self, pod: Thing, class_name: str = "vault") -> Thing | None:
        """Return the status of a volume, or None."""
        return await off(lambda: self.admin.api.find(status_path(pod, class_name)))

    async def settled(self, spec: VolumeSpec) -> None:
        """Return when nothing is being written of a status."""
        assert self.core.cluster is not None
        await self.core.cluster.statuses.settled(spec)

    async def version(self, pod: Thing) -> str:
        """Return the version of a status, which changes with every write."""
        status = await self.status(pod)
        assert status is not None
        return str(status["metadata"]["resourceVersion"])

    async def shows(self, pod: Thing, version: str) -> None:
        """Return when the status of a volume names a version of all its objects."""

        async def told() -> bool:
            status = await self.status(pod)
            return {each["version"] for each in (status or {})["status"]["objects"]} == {version}

        await poll(told)

    async def gone(self, pod: Thing) -> None:
        """Return when there is no status of a volume any more."""

        async def absent() -> bool:
            return await self.status(pod) is None

        await poll(absent)


async def off(call: Callable[[], T]) -> T:
    """Run what blocks in a thread, so that the node server goes on."""
    return await trio.to_thread.run_sync(call)


async def until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds that nobody announces."""
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - no event tells
            await trio.sleep(PAUSE_S)


def publish_of(pod: Thing, class_name: str) -> PublishRequest:
    """Return what kubelet asks for a pod."""
    uid = pod["metadata"]["uid"]
    return PublishRequest(
        spec=VolumeSpec(
            volume_id=VolumeId(f"csi-{uid}-{class_name}"),
            target=TargetPath(f"{ROOT}/pods/{uid}/volumes/kubernetes.io~csi/{class_name}/mount"),
            attributes={
                CLASS_KEY: class_name,
                POD_NAME_KEY: pod["metadata"]["name"],
                POD_NAMESPACE_KEY: pod["metadata"]["namespace"],
                POD_UID_KEY: uid,
            },
        ),
        credentials=Credentials(),
    )


def status_path(pod: Thing, class_name: str = "vault") -> str:
    """Return where the API has the status of a volume, under the reference's name."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    listed = f"/apis/{GROUP}/v1/namespaces/{namespace}/secretproviderclasspodstatuses"
    return f"{listed}/{name}-{namespace}-{class_name}"


async def make_class(
    admin: Cluster, vault: str, *, name: str = "vault", namespace: str = HERE
) -> None:
    """Create a class, or change it."""
    wanted = provider_class(name, "azure", namespace=namespace, keyvaultName=vault)
    await off(lambda: admin.apply(wanted))


async def make_pod(admin: Cluster, name: str, **spec: object) -> Thing:
    """Create a pod that no scheduler touches, and return it."""
    containers = [{"name": "main", "image": "none"}]
    held = [{"name": "akvfs.test/held"}]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": HERE},
        "spec": {"containers": containers, "schedulingGates": held, **spec},
    }
    await off(lambda: admin.apply(pod))
    return await off(lambda: admin.api.get(f"/api/v1/namespaces/{HERE}/pods/{name}"))


@asynccontextmanager
async def reached(
    admin: Cluster, folder: Path, account: str = NODE_SERVER, namespace: str = NAMESPACE
) -> AsyncIterator[tuple[KubeApi, network.Way]]:
    """Reach the API server as a service account, inside the block."""
    create = partial(admin.kubectl, "create", "token", account, f"--namespace={namespace}")
    token = (await off(create)).strip()
    async with network.way_into(admin.node.machine.init, ADDRESS, API_PORT) as way:
        authority = str(admin.node.path("/etc/kubernetes/ca.crt"))
        url = f"https://{network.LOOPBACK}:{way.port}"
        kubeconfig = {
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [
                {"name": "it", "cluster": {"server": url, "certificate-authority": authority}}
            ],
            "users": [{"name": "it", "user": {"token": token}}],
        }
        path = folder / f"kubeconfig-{way.port}"
        path.write_text(yaml.safe_dump(kubeconfig), encoding="utf-8")
        api = KubeApi.load(path)
        try:
            yield api, way
        finally:
            api.close()


@asynccontextmanager
async def server(
    admin: Cluster, folder: Path, keeper: FakeKeeper | None = None
) -> AsyncIterator[Server]:
    """Run a node server inside the block; the keeper may be one that served another before."""
    keeper, providers = keeper or FakeKeeper(), FakeProviders()
    async with reached(admin, folder) as (api, way), trio.open_nursery() as nursery:
        core = app.wire(
            config_for(poll_interval=3600.0),
            connect_keeper=keeper.connect,
            classes=Sources(api, node_id="node-1", watching=True),
            providers=providers,
        )
        nursery.start_soon(core.run)
        yield Server(core=core, api=api, way=way, keeper=keeper, providers=providers, admin=admin)
        nursery.cancel_scope.cancel()
        core.registry.close()

"""The node server above a cluster: the parts together, then the whole on its sockets."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from csi import app
from csi.cluster import Cluster
from csi.errors import ClassNotFound
from csi.record import decode_options
from fakes.keeper import FakeKeeper
from fakes.kubeapi import CLASSES, STATUSES, Running, kube_api
from fakes.kubelet import publish_message, publish_request, unpublish_request
from fakes.nodeserver import config_for, served
from fakes.polling import poll_value
from fakes.providersocket import provider_at
from fakes.sources import FakeProviders
from fusefs.errors import Superseded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SPEC = publish_request().spec
NAME = f"{SPEC.pod}-{SPEC.namespace}-{SPEC.class_name}"


@asynccontextmanager
async def _core(
    kube: Running, providers: FakeProviders, keeper: FakeKeeper | None = None
) -> AsyncIterator[app.Core]:
    core = app.wire(
        config_for(),
        connect_keeper=(keeper or FakeKeeper()).connect,
        classes=Cluster(kube.api, node_id="node-1", watching=True),
        providers=providers,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.run)
        try:
            yield core
        finally:
            nursery.cancel_scope.cancel()
            core.registry.close()


async def test_edited_class_refreshes_volumes_at_once(tmp_path: Path) -> None:
    """The interval is two minutes; the edit is seen long before."""
    providers = FakeProviders()
    with kube_api(tmp_path) as kube:
        kube.server.put_class(SPEC.class_name, SPEC.namespace)
        async with _core(kube, providers) as core:
            await core.node.publish(publish_request())
            await poll_value(lambda: "watch" in kube.server.verbs(CLASSES), expected=True)
            kube.server.put_class(SPEC.class_name, SPEC.namespace, keyvaultName="other")
            await poll_value(lambda: len(providers.calls), 2)
    assert '"keyvaultName":"other"' in providers.calls[-1][1].attributes


async def test_status_is_there_when_a_publish_returns(tmp_path: Path) -> None:
    """Written once, whatever kubelet repeats; it stays for the pod's owner reference."""
    with kube_api(tmp_path) as kube:
        kube.server.put_class(SPEC.class_name, SPEC.namespace)
        async with _core(kube, FakeProviders()) as core:
            await core.node.publish(publish_request())
            assert (STATUSES, SPEC.namespace, NAME) in kube.server.objects
            await core.node.publish(publish_request())
            await core.node.unpublish(unpublish_request())
        assert kube.server.verbs(STATUSES) == ["create"]


async def test_unpublish_waits_for_no_status(tmp_path: Path) -> None:
    """A publish waits for the API without the lock of its volume."""
    answer = threading.Event()
    keeper = FakeKeeper()

    def hold(verb: str, _: str) -> None:
        if verb == "create":
            answer.wait(20)

    with kube_api(tmp_path) as kube:
        kube.server.put_class(SPEC.class_name, SPEC.namespace)
        kube.server.hook = hold
        async with _core(kube, FakeProviders(), keeper) as core, trio.open_nursery() as nursery:
            nursery.start_soon(core.node.publish, publish_request())
            await poll_value(lambda: kube.server.verbs(STATUSES), ["create"])
            with trio.fail_after(2):
                await core.node.unpublish(unpublish_request())
            assert keeper.kept == {}
            answer.set()


async def test_superseded_node_server_writes_no_status(tmp_path: Path) -> None:
    """What it could not write before is its successor's, which knows better."""
    keeper = FakeKeeper()
    with kube_api(tmp_path) as kube:
        kube.server.put_class(SPEC.class_name, SPEC.namespace)
        kube.server.fail("create", STATUSES, 500)
        async with _core(kube, FakeProviders(), keeper) as core:
            await core.node.publish(publish_request())
            await poll_value(lambda: kube.server.verbs(STATUSES), ["create"])
            assert core.cluster is not None
            assert core.cluster.classes.watched == {SPEC.namespace}
            async with keeper.connect():
                with pytest.raises(Superseded):
                    await core.node.unpublish(unpublish_request())
                await poll_value(lambda: core.cluster and core.cluster.classes.watched, frozenset())


async def test_old_cluster_publishes_all_the_same(tmp_path: Path) -> None:
    """A status that cannot be written fails no publish."""
    with kube_api(tmp_path) as kube:
        kube.server.kinds.remove(STATUSES)
        kube.server.put_class(SPEC.class_name, SPEC.namespace)
        async with _core(kube, FakeProviders()) as core:
            await core.node.publish(publish_request())
            assert core.registry.shown(SPEC.volume_id) is not None


async def test_refused_publish_leaves_nothing(tmp_path: Path) -> None:
    """A class is missing; once it is created the pod starts, in its user namespace."""
    with kube_api(tmp_path) as kube:
        async with _core(kube, FakeProviders()) as core:
            with pytest.raises(ClassNotFound):
                await core.node.publish(publish_request())
            kube.server.put_class(SPEC.class_name, SPEC.namespace)
            kube.server.put("pods", SPEC.namespace, SPEC.pod, {"spec": {"hostUsers": False}})
            assert list(core.registry) == []
            await core.node.publish(publish_request())
            shown = core.registry.shown(SPEC.volume_id)
            assert shown is not None
            assert decode_options(shown.record).user_namespace


async def test_classes_come_from_the_kubeconfig_given(tmp_path: Path) -> None:
    """Over the CSI socket, with the flags that a chart would give."""
    with kube_api(tmp_path) as kube, provider_at(tmp_path / "azure.sock"):
        async with served(tmp_path, class_dir=None, kubeconfig=kube.kubeconfig) as here:
            code, message = await here.fails(here.node.NodePublishVolume, publish_message())
            assert code == "NOT_FOUND"
            assert message.startswith(
                f"failed to get secretproviderclass {SPEC.namespace}/{SPEC.class_name}, error: "
                "secretproviderclasses.secrets-store.csi.x-k8s.io"
            )
            kube.server.put_class(SPEC.class_name, SPEC.namespace)
            await here.call(here.node.NodePublishVolume, publish_message())

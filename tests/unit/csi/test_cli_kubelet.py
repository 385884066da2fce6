"""Kubelet's part as the demo and the playground play it, against the real node server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from csi.cli import calls
from csi.cli.errors import CallFailed, FoldersLeft
from csi.cli.kubelet import Kubelet
from csi.cli.podvolume import PodVolume
from csi.cli.processes import Changes
from fakes.keeper import FakeKeeper
from fakes.nodeserver import Served, served, write_class
from fakes.polling import poll, poll_value
from fakes.providersocket import FakeProvider, provider_at

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

VOLUME = PodVolume(
    pod="web-0",
    pod_uid="7d7c1483-a29e-47c3-8d13-739617f82a24",
    namespace="shop",
    service_account="web",
    volume="secrets",
    provider_class="vault",
    driver="secrets-store.csi.k8s.io",
    node="node-1",
    group=2000,
)
SECRETS = {"clientid": "robot", "clientsecret": "canary-of-kubelet"}


def kubelet_in(directory: Path) -> Kubelet:
    """Return a kubelet whose root is in `directory`."""
    root = directory / "kubelet"
    (root / "pods").mkdir(parents=True)
    return Kubelet(VOLUME, root=root, socket=directory / "csi.sock", secrets=SECRETS)


def node_server(directory: Path) -> AbstractAsyncContextManager[Served]:
    """Serve in `directory`, where kubelet's root is too."""
    root = str(directory / "kubelet")
    return served(directory, FakeKeeper(root=root), kubelet_root=root)


def test_volume_is_named_as_kubelet_names_it(tmp_path: Path) -> None:
    """The id is a digest of the pod's uid and the volume's name; the target has the layout."""
    assert VOLUME.volume_id == (
        "csi-0ee5b493720b1c5b10f164e934430d4725b613f7986d62144649e60ab789baa9"
    )
    assert VOLUME.target(tmp_path) == (
        tmp_path / "pods" / VOLUME.pod_uid / "volumes/kubernetes.io~csi/secrets/mount"
    )


def test_volume_data_has_kubelets_keys() -> None:
    """What lies beside the target names the driver, the volume and how it lives."""
    data = json.loads(VOLUME.data())
    assert data.keys() == {
        *("attachmentID", "driverName", "nodeName", "specVolID"),
        *("volumeHandle", "volumeLifecycleMode"),
    }
    assert (data["driverName"], data["volumeHandle"]) == (VOLUME.driver, VOLUME.volume_id)
    assert data["volumeLifecycleMode"] == "Ephemeral"


async def test_publish_sends_what_kubelet_sends(tmp_path: Path) -> None:
    """The layout is there before the call; pod info, secrets and group arrive."""
    kubelet, fake = kubelet_in(tmp_path), FakeProvider()
    write_class(tmp_path)
    with provider_at(tmp_path / "azure.sock", fake):
        async with node_server(tmp_path) as node:
            await kubelet.publish()
            assert (kubelet.target.parent / "vol_data.json").read_bytes() == VOLUME.data()
            [kept] = node.keeper.kept.values()
            assert (kept.volume_id, kept.target) == (VOLUME.volume_id, str(kubelet.target))
            assert {entry.gid for entry in kept.snapshot.entries()} == {2000}
    attributes = json.loads(fake.requests[0].attributes)
    assert attributes["csi.storage.k8s.io/pod.name"] == "web-0"
    assert attributes["csi.storage.k8s.io/serviceAccount.name"] == "web"
    assert json.loads(fake.requests[0].secrets) == SECRETS


async def test_unpublish_removes_kubelets_folders(tmp_path: Path) -> None:
    """Afterwards there is nothing of the pod below `pods`."""
    kubelet = kubelet_in(tmp_path)
    write_class(tmp_path)
    with provider_at(tmp_path / "azure.sock"):
        async with node_server(tmp_path) as node:
            await kubelet.publish()
            await kubelet.unpublish()
            assert node.keeper.kept == {}
    assert list((tmp_path / "kubelet" / "pods").iterdir()) == []


async def test_rest_at_the_target_is_told(tmp_path: Path) -> None:
    """A driver that says OK and leaves the target behind does not go unnoticed."""
    kubelet = kubelet_in(tmp_path)
    async with node_server(tmp_path):
        kubelet.target.mkdir(parents=True)
        with pytest.raises(FoldersLeft, match="secrets is left"):
            await kubelet.unpublish()


async def test_failed_call_has_code_and_no_secret(tmp_path: Path) -> None:
    """The driver's answer reaches the caller, and the folders stay for the next attempt."""
    kubelet = kubelet_in(tmp_path)
    async with node_server(tmp_path):
        with pytest.raises(CallFailed, match="NodePublishVolume answers") as caught:
            await kubelet.publish()
    assert caught.value.code == "NOT_FOUND"  # there is no such class
    assert "canary" not in str(caught.value)
    assert kubelet.target.parent.exists()


async def test_nobody_at_the_socket_is_unavailable(tmp_path: Path) -> None:
    """Where nothing listens a call fails at once, and nothing is ready."""
    with pytest.raises(CallFailed) as caught:
        await kubelet_in(tmp_path).publish()
    assert caught.value.code == "UNAVAILABLE"
    assert not await calls.node_ready(tmp_path / "csi.sock")
    assert not await calls.provider_ready(tmp_path / "azure.sock")


async def test_servers_that_answer_are_ready(tmp_path: Path) -> None:
    """A node server with a keeper is ready, one without is not; a provider is when it answers."""
    with provider_at(tmp_path / "azure.sock"):
        assert await calls.provider_ready(tmp_path / "azure.sock")
    async with served(tmp_path) as node:
        await poll(lambda: calls.node_ready(tmp_path / "csi.sock"))
        node.keeper.listening = False
        node.keeper.disconnect()
        assert not await calls.node_ready(tmp_path / "csi.sock")


async def test_restart_is_answered_with_a_republish(tmp_path: Path) -> None:
    """A change is not waited out, also one that came while a publish was under way."""
    kubelet, restarts = kubelet_in(tmp_path), Changes()
    write_class(tmp_path)
    with provider_at(tmp_path / "azure.sock"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kubelet.keep_published, restarts)
            await trio.testing.wait_all_tasks_blocked()
            restarts.notify()  # nobody listens yet: kubelet tries again and again
            async with node_server(tmp_path) as node:
                await poll_value(lambda: set(node.keeper.kept), {VOLUME.volume_id})
                nursery.cancel_scope.cancel()

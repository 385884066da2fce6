"""The CSI services over a real unix socket, with a fake keeper and a real provider socket."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio

from csi._pb import csi_pb2
from fakes.keeper import FakeKeeper
from fakes.kubelet import publish_message, target_of, unpublish_message
from fakes.nodeserver import served, write_class
from fakes.providersocket import mount_response, provider_at
from fusefs.errors import Superseded

if TYPE_CHECKING:
    from pathlib import Path

    import grpc

    from fakes.keeper import Moment
    from fakes.nodeserver import Served
    from provider._pb import v1alpha1_pb2


async def test_publish_shows_content_then_unpublish_takes_it(tmp_path: Path) -> None:
    """A publish shows what the provider returned, an unpublish leaves nothing."""
    write_class(tmp_path)
    async with served(tmp_path) as node:
        with provider_at(tmp_path / "azure.sock"):
            await node.call(node.node.NodePublishVolume, publish_message())
        assert node.keeper.shown("csi-web") == {"password": b"first"}
        await node.call(node.node.NodeUnpublishVolume, unpublish_message())
        assert node.keeper.kept == {}


async def test_calls_are_idempotent_over_the_socket(tmp_path: Path) -> None:
    """Publishing twice and unpublishing twice succeeds, and mounts once (CSI: idempotency)."""
    write_class(tmp_path)
    async with served(tmp_path) as node:
        with provider_at(tmp_path / "azure.sock") as provider:
            for _ in range(2):
                await node.call(node.node.NodePublishVolume, publish_message())
            assert len(provider.requests) == 1
        for _ in range(2):
            await node.call(node.node.NodeUnpublishVolume, unpublish_message())
    assert node.keeper.calls.count("publish") == 1


async def test_mount_group_sets_group_and_keeps_modes(tmp_path: Path) -> None:
    """The pod's fsGroup becomes the group of files and directories; modes stay as asked."""
    write_class(tmp_path)
    message = publish_message()
    message.volume_capability.mount.volume_mount_group = "2000"
    async with served(tmp_path) as node:
        with provider_at(tmp_path / "azure.sock") as provider:
            provider.answer = lambda *_: mount_response({"tls/key": b"k"}, mode=0o440)
            await node.call(node.node.NodePublishVolume, message)
        snapshot = node.keeper.kept["csi-web"].snapshot
        [entry] = snapshot.entries()
        assert (entry.uid, entry.gid, entry.mode) == (0, 2000, 0o440)
        assert {directory.gid for directory in snapshot.directories.values()} == {2000}


async def test_label_is_what_kubelet_asks_for(tmp_path: Path) -> None:
    """The label comes in quotes; other mount options are not for these volumes."""
    write_class(tmp_path)
    message = publish_message()
    flags = ["noatime", 'context="system_u:object_r:container_file_t:s0:c1,c2"']
    message.volume_capability.mount.mount_flags.extend(flags)
    async with served(tmp_path) as node:
        with provider_at(tmp_path / "azure.sock"):
            await node.call(node.node.NodePublishVolume, message)
        options = node.keeper.kept["csi-web"].options
    assert options.selinux_context == "system_u:object_r:container_file_t:s0:c1,c2"


async def test_plugin_info_names_driver_and_version(tmp_path: Path) -> None:
    """GetPluginInfo names the driver and a version that is not empty."""
    async with served(tmp_path) as node:
        info = await node.call(node.identity.GetPluginInfo, csi_pb2.GetPluginInfoRequest())
    assert info.name == "secrets-store.csi.k8s.io"
    assert info.vendor_version


async def test_capabilities_are_those_we_have(tmp_path: Path) -> None:
    """VOLUME_MOUNT_GROUP alone for the node, and the reference's for plugin and controller."""
    async with served(tmp_path) as node:
        plugin = await node.call(
            node.identity.GetPluginCapabilities, csi_pb2.GetPluginCapabilitiesRequest()
        )
        controller = await node.call(
            node.controller.ControllerGetCapabilities, csi_pb2.ControllerGetCapabilitiesRequest()
        )
        capabilities = await node.call(
            node.node.NodeGetCapabilities, csi_pb2.NodeGetCapabilitiesRequest()
        )
    service = csi_pb2.PluginCapability.Service
    assert [each.service.type for each in plugin.capabilities] == [service.CONTROLLER_SERVICE]
    assert [each.rpc.type for each in controller.capabilities] == [
        csi_pb2.ControllerServiceCapability.RPC.UNKNOWN
    ]
    assert [each.rpc.type for each in capabilities.capabilities] == [
        csi_pb2.NodeServiceCapability.RPC.VOLUME_MOUNT_GROUP
    ]


async def test_node_info_has_the_id_and_no_limit(tmp_path: Path) -> None:
    """NodeGetInfo names the node; there is no limit of volumes and no topology."""
    async with served(tmp_path) as node:
        info = await node.call(node.node.NodeGetInfo, csi_pb2.NodeGetInfoRequest())
    assert (info.node_id, info.max_volumes_per_node) == ("node-1", 0)
    assert not info.HasField("accessible_topology")


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("NodeStageVolume", csi_pb2.NodeStageVolumeRequest),
        ("NodeUnstageVolume", csi_pb2.NodeUnstageVolumeRequest),
        ("NodeGetVolumeStats", csi_pb2.NodeGetVolumeStatsRequest),
        ("NodeExpandVolume", csi_pb2.NodeExpandVolumeRequest),
    ],
)
async def test_calls_not_offered_are_unimplemented(
    tmp_path: Path, method: str, request_type: type
) -> None:
    """What is not among the capabilities answers UNIMPLEMENTED."""
    async with served(tmp_path) as node:
        code, message = await node.fails(getattr(node.node, method), request_type())
    assert (code, message) == ("UNIMPLEMENTED", f"{method} is not implemented")


async def test_probe_tells_whether_the_keeper_answers(tmp_path: Path) -> None:
    """Probe is ready with a keeper, and not ready once the keeper is gone."""
    async with served(tmp_path) as node:
        await node.call(node.node.NodeUnpublishVolume, unpublish_message())  # waits for the keeper
        probe = await node.call(node.identity.Probe, csi_pb2.ProbeRequest())
        assert probe.ready.value
        node.keeper.listening = False
        node.keeper.disconnect()
        probe = await node.call(node.identity.Probe, csi_pb2.ProbeRequest())
        assert not probe.ready.value


async def superseded(old: Served, new: Served) -> None:
    """Return when a node server has taken over from another, which kubelet has a connection to."""
    await old.call(old.identity.Probe, csi_pb2.ProbeRequest())
    await new.call(new.node.NodeUnpublishVolume, unpublish_message("of-nobody"))
    assert len(new.keeper.sessions) == 2


async def test_calls_after_a_takeover_are_handed_on(tmp_path: Path) -> None:
    """What reaches a superseded node server is done by the one that has its place."""
    write_class(tmp_path)
    keeper = FakeKeeper()
    async with served(tmp_path, keeper) as old, served(tmp_path, keeper) as new:
        await superseded(old, new)
        with provider_at(tmp_path / "azure.sock"):
            await old.call(old.node.NodePublishVolume, publish_message())
        assert keeper.shown("csi-web") == {"password": b"first"}
        await old.call(old.node.NodeUnpublishVolume, unpublish_message())
        assert keeper.kept == {}


async def test_publish_under_way_at_a_takeover_succeeds(tmp_path: Path) -> None:
    """A publish whose content arrives after the takeover is done by the successor."""
    write_class(tmp_path)
    keeper, stuck, published = FakeKeeper(), Stuck(), trio.Event()

    async def publish() -> None:
        await old.call(old.node.NodePublishVolume, publish_message())
        published.set()

    async with served(tmp_path, keeper) as old, trio.open_nursery() as nursery:
        with provider_at(tmp_path / "azure.sock") as provider:
            provider.answer = stuck
            nursery.start_soon(publish)
            await trio.to_thread.run_sync(stuck.asked.wait)
            async with served(tmp_path, keeper) as new:
                await superseded(old, new)
                provider.answer = lambda *_: mount_response({"password": b"second"})
                stuck.over.set()
                with trio.fail_after(10):
                    await published.wait()
    assert keeper.shown("csi-web") == {"password": b"second"}


async def test_error_of_the_successor_is_passed_on(tmp_path: Path) -> None:
    """The caller gets the successor's code and message, as if it had asked it."""
    keeper = FakeKeeper()
    async with served(tmp_path, keeper) as old, served(tmp_path, keeper) as new:
        await superseded(old, new)
        asked = await new.fails(new.node.NodePublishVolume, publish_message())
        assert asked[0] == "NOT_FOUND"
        assert await old.fails(old.node.NodePublishVolume, publish_message()) == asked


async def test_superseded_without_successor_says_so(tmp_path: Path) -> None:
    """While nobody else serves at its path, a superseded node server asks itself no further."""
    asked: list[str] = []

    async def supersede(name: str, _: Moment) -> None:
        asked.append(name)
        message = "a newer node server has registered"
        raise Superseded(message)

    async with served(tmp_path) as node:
        node.keeper.hook = supersede
        answer = await node.fails(node.node.NodeUnpublishVolume, unpublish_message())
    assert answer == ("ABORTED", "a newer node server has registered")
    assert asked == ["unpublish"] * 2


class Stuck:
    """A provider's answer that does not come before the caller ends the call."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.asked = threading.Event()
        self.over = threading.Event()

    def __call__(
        self, _: v1alpha1_pb2.MountRequest, context: grpc.ServicerContext
    ) -> v1alpha1_pb2.MountResponse:
        """Wait for the end of the call."""
        context.add_callback(self.over.set)
        self.asked.set()
        self.over.wait()
        return mount_response({"password": b"too late"})


async def test_slow_provider_is_named_before_the_deadline(tmp_path: Path) -> None:
    """A provider that uses up the caller's deadline is told by name, and nothing is left."""
    write_class(tmp_path)
    async with served(tmp_path) as node:
        with provider_at(tmp_path / "azure.sock") as provider:
            provider.answer = Stuck()
            code, message = await node.fails(
                node.node.NodePublishVolume, publish_message(), timeout_s=0.5
            )
    assert code == "DEADLINE_EXCEEDED"
    assert 'provider "azure" did not answer within' in message
    assert node.keeper.calls == []


async def test_caller_that_hangs_up_ends_his_publish(tmp_path: Path) -> None:
    """A cancelled publish cancels the provider's call, leaves nothing and can be repeated."""
    write_class(tmp_path)
    async with served(tmp_path) as node:
        with provider_at(tmp_path / "azure.sock") as provider:
            answer, stuck = provider.answer, Stuck()
            provider.answer = stuck
            call = node.node.NodePublishVolume.future(publish_message(), timeout=20)
            await trio.to_thread.run_sync(stuck.asked.wait, 10)
            call.cancel()
            assert await trio.to_thread.run_sync(stuck.over.wait, 10)
            assert node.keeper.kept == {}
            provider.answer = answer
            await node.call(node.node.NodePublishVolume, publish_message())
        assert node.keeper.kept["csi-web"].target == target_of()


async def test_unpublish_finds_a_thread_behind_publishes(tmp_path: Path) -> None:
    """However many publishes wait for a vault, an unpublish is answered."""
    write_class(tmp_path)
    async with served(tmp_path, threads=4) as node:
        with provider_at(tmp_path / "azure.sock") as provider:
            stuck = Stuck()
            provider.answer = stuck
            calls = [
                node.node.NodePublishVolume.future(publish_message(f"pod-{number}"), timeout=20)
                for number in range(8)
            ]
            await trio.to_thread.run_sync(stuck.asked.wait, 10)
            await node.call(node.node.NodeUnpublishVolume, unpublish_message(), timeout_s=5)
            assert not any(call.done() for call in calls)
            for call in calls:
                call.cancel()

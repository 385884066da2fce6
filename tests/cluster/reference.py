"""A driver that leaves on the node what the reference driver leaves there, and no more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

import grpc
from typing_extensions import override

from cluster.addresses import NODE
from cluster.volumes import DRIVER
from csi._pb import (
    csi_pb2,
    csi_pb2_grpc,
    pluginregistration_pb2,
    pluginregistration_pb2_grpc,
)
from harness import referencevolume

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cluster.node import Node

FOLDER: Final = "/var/lib/kubelet/plugins/reference"
REGISTRY: Final = "/var/lib/kubelet/plugins_registry"
# While it is there, kubelet has the driver.
REGISTRATION: Final = f"{REGISTRY}/reference-reg.sock"


@contextmanager
def reference(node: Node, files: Mapping[str, bytes]) -> Iterator[None]:
    """Run a driver of our name in this process, inside the block; what it has mounted stays.

    Args:
        node: Its sockets are there, and ours are not.
        files: What each volume shows.
    """
    node.path(FOLDER).mkdir()
    server = grpc.server(ThreadPoolExecutor(4))
    services = _Reference(node, files)
    csi_pb2_grpc.add_NodeServicer_to_server(services, server)
    pluginregistration_pb2_grpc.add_RegistrationServicer_to_server(services, server)
    for socket in (f"{FOLDER}/csi.sock", REGISTRATION):
        server.add_insecure_port(f"unix:{node.path(socket)}")
    server.start()
    try:
        yield
    finally:
        server.stop(grace=None).wait()
        node.run("rm", "-rf", REGISTRATION, FOLDER)


def _refuse(_: object, request: object, context: grpc.ServicerContext) -> NoReturn:
    """Answer what kubelet does not ask of such a driver."""
    context.abort(grpc.StatusCode.UNIMPLEMENTED, type(request).__name__)


class _Reference(
    csi_pb2_grpc.NodeServicer,
    pluginregistration_pb2_grpc.RegistrationServicer,
):
    """Publishes; pods are deleted under a driver of ours."""

    NodeUnpublishVolume = _refuse
    NodeStageVolume = _refuse
    NodeUnstageVolume = _refuse
    NodeGetVolumeStats = _refuse
    NodeExpandVolume = _refuse

    def __init__(self, node: Node, files: Mapping[str, bytes]) -> None:
        self._node = node
        self._files = files

    @override
    def GetInfo(
        self, request: pluginregistration_pb2.InfoRequest, context: grpc.ServicerContext
    ) -> pluginregistration_pb2.PluginInfo:
        return pluginregistration_pb2.PluginInfo(
            type="CSIPlugin",
            name=DRIVER,
            endpoint=f"{FOLDER}/csi.sock",
            supported_versions=["1.0.0"],
        )

    @override
    def NotifyRegistrationStatus(
        self, request: pluginregistration_pb2.RegistrationStatus, context: grpc.ServicerContext
    ) -> pluginregistration_pb2.RegistrationStatusResponse:
        return pluginregistration_pb2.RegistrationStatusResponse()

    @override
    def NodeGetInfo(
        self, request: csi_pb2.NodeGetInfoRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetInfoResponse:
        return csi_pb2.NodeGetInfoResponse(node_id=NODE)

    @override
    def NodeGetCapabilities(
        self, request: csi_pb2.NodeGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        return csi_pb2.NodeGetCapabilitiesResponse()

    @override
    def NodePublishVolume(
        self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodePublishVolumeResponse:
        target = request.target_path
        self._node.run("mkdir", "-p", target)
        if f" {target} " not in self._node.mountinfo():
            self._node.run("mount", "-t", "tmpfs", "tmpfs", target)
            referencevolume.fill(self._node.path(target), self._files)
        return csi_pb2.NodePublishVolumeResponse()

"""The gRPC classes of the CSI: parse, cross into the loop, call, build the answer. No decisions.

Every exception of a call ends here: `status` gives it a code, the log gets one line. Requests are
logged as records, which hide credentials (`logs`).
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn, TypeVar

import grpc
from google.protobuf import wrappers_pb2
from typing_extensions import override

from csi import logkeys, status
from csi._pb import csi_pb2, csi_pb2_grpc
from csi.bridge import Bridge
from csi.errors import CsiError, NotSupported
from csi.identity import Identity
from csi.metrics import Metrics
from csi.node import Node
from csi.requests import parse_publish, parse_unpublish
from csi.successor import Successor, was_handed_on
from fusefs.errors import FusefsError, Superseded

log = logging.getLogger(__name__)

PUBLISH_METHOD: Final = "/csi.v1.Node/NodePublishVolume"

T = TypeVar("T")


def _end(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)


def _abort(method: str, context: grpc.ServicerContext, error: BaseException) -> NoReturn:
    code = status.code_of(error)
    expected = isinstance(error, (CsiError, FusefsError))
    log.log(
        logging.WARNING if expected else logging.ERROR,
        "call failed",
        extra={
            logkeys.METHOD: method,
            logkeys.CODE: code.name,
            logkeys.ERROR: status.message_of(error),
        },
        exc_info=None if expected else error,
    )
    _end(context, code, status.message_of(error))


def _answer(
    method: str,
    context: grpc.ServicerContext,
    work: Callable[[], T],
    on_failed: Callable[[Exception], None] = lambda _: None,
    hand_on: Callable[[], T] | None = None,
) -> T:
    """Return what `work` does, or end the call with the status of its exception.

    Args:
        method: For the log.
        context: The call.
        work: Does it.
        on_failed: Told why the call fails.
        hand_on: Lets the successor do it, if there is one.
    """
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - the boundary: nothing else may leave
        failure = error
    if isinstance(failure, Superseded) and hand_on is not None and not was_handed_on(context):
        return _handed_on(method, context, hand_on)
    on_failed(failure)
    _abort(method, context, failure)


def _handed_on(method: str, context: grpc.ServicerContext, hand_on: Callable[[], T]) -> T:
    """Return what the successor answers, or end the call with its error; it has counted it."""
    log.info("call handed on to the successor", extra={logkeys.METHOD: method})
    try:
        return hand_on()
    except grpc.FutureCancelledError:
        code, message = grpc.StatusCode.CANCELLED, "the caller went away"
    except grpc.RpcError as error:
        code, message = error.code(), error.details() or ""
    _end(context, code, message)


class IdentityServicer(csi_pb2_grpc.IdentityServicer):
    """csi.v1.Identity."""

    def __init__(self, identity: Identity, bridge: Bridge) -> None:
        """Answer with what `identity` says."""
        self._identity = identity
        self._bridge = bridge

    @override
    def GetPluginInfo(
        self, request: csi_pb2.GetPluginInfoRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetPluginInfoResponse:
        """Say who the driver is."""
        info = self._identity.info()
        return csi_pb2.GetPluginInfoResponse(name=info.name, vendor_version=info.version)

    @override
    def GetPluginCapabilities(
        self, request: csi_pb2.GetPluginCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        """Say which services there are."""
        service = csi_pb2.PluginCapability.Service
        return csi_pb2.GetPluginCapabilitiesResponse(
            capabilities=[
                csi_pb2.PluginCapability(service=service(type=service.Type.Value(name)))
                for name in self._identity.capabilities()
            ]
        )

    @override
    def Probe(
        self, request: csi_pb2.ProbeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ProbeResponse:
        """Say whether the driver works."""

        def work() -> csi_pb2.ProbeResponse:
            ready = self._bridge.cross(context, self._identity.probe)
            return csi_pb2.ProbeResponse(ready=wrappers_pb2.BoolValue(value=ready))

        return _answer("Probe", context, work)


class ControllerServicer(csi_pb2_grpc.ControllerServicer):
    """csi.v1.Controller: announced, and able to do nothing, as in the reference."""

    @override
    def ControllerGetCapabilities(
        self, request: csi_pb2.ControllerGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Say that it can do nothing: one capability of the type UNKNOWN."""
        rpc = csi_pb2.ControllerServiceCapability.RPC
        return csi_pb2.ControllerGetCapabilitiesResponse(
            capabilities=[csi_pb2.ControllerServiceCapability(rpc=rpc(type=rpc.UNKNOWN))]
        )


class NodeServicer(csi_pb2_grpc.NodeServicer):
    """csi.v1.Node."""

    def __init__(
        self,
        node: Node,
        bridge: Bridge,
        metrics: Metrics,
        successor: Successor,
        *,
        kubelet_root: str,
    ) -> None:
        """Answer with what `node` does, and count it; or with what `successor` answers."""
        self._metrics = metrics
        self._successor = successor
        self._node = node
        self._bridge = bridge
        self._kubelet_root = kubelet_root

    @override
    def NodePublishVolume(
        self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodePublishVolumeResponse:
        """Show a volume at its target."""

        def work() -> csi_pb2.NodePublishVolumeResponse:
            record = parse_publish(request, kubelet_root=self._kubelet_root)
            _log_request("NodePublishVolume", record)
            provider = self._bridge.cross(context, partial(self._node.publish, record))
            if provider is not None:
                self._metrics.published(provider)
            return csi_pb2.NodePublishVolumeResponse()

        return _answer(
            "NodePublishVolume",
            context,
            work,
            self._metrics.publish_failed,
            lambda: self._successor.ask(lambda node: node.NodePublishVolume, request, context),
        )

    @override
    def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Leave nothing of a volume at its target."""

        def work() -> csi_pb2.NodeUnpublishVolumeResponse:
            record = parse_unpublish(request)
            _log_request("NodeUnpublishVolume", record)
            self._bridge.cross(context, partial(self._node.unpublish, record))
            self._metrics.unpublished()
            return csi_pb2.NodeUnpublishVolumeResponse()

        return _answer(
            "NodeUnpublishVolume",
            context,
            work,
            self._metrics.unpublish_failed,
            lambda: self._successor.ask(lambda node: node.NodeUnpublishVolume, request, context),
        )

    @override
    def NodeGetCapabilities(
        self, request: csi_pb2.NodeGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        """Say which optional calls and fields there are."""
        rpc = csi_pb2.NodeServiceCapability.RPC
        return csi_pb2.NodeGetCapabilitiesResponse(
            capabilities=[
                csi_pb2.NodeServiceCapability(rpc=rpc(type=rpc.Type.Value(name)))
                for name in self._node.capabilities()
            ]
        )

    @override
    def NodeGetInfo(
        self, request: csi_pb2.NodeGetInfoRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetInfoResponse:
        """Say what the node is called."""
        return csi_pb2.NodeGetInfoResponse(node_id=self._node.info().node_id)

    @override
    def NodeStageVolume(
        self, request: csi_pb2.NodeStageVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeStageVolumeResponse:
        """Not offered."""
        _not_supported("NodeStageVolume", context)

    @override
    def NodeUnstageVolume(
        self, request: csi_pb2.NodeUnstageVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnstageVolumeResponse:
        """Not offered."""
        _not_supported("NodeUnstageVolume", context)

    @override
    def NodeGetVolumeStats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """Not offered."""
        _not_supported("NodeGetVolumeStats", context)

    @override
    def NodeExpandVolume(
        self, request: csi_pb2.NodeExpandVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeExpandVolumeResponse:
        """Not offered."""
        _not_supported("NodeExpandVolume", context)


def _not_supported(method: str, context: grpc.ServicerContext) -> NoReturn:
    _abort(method, context, NotSupported(f"{method} is not implemented"))


def _log_request(method: str, request: object) -> None:
    log.debug("call", extra={logkeys.METHOD: method, logkeys.REQUEST: request})


def register(
    server: grpc.Server,
    *,
    identity: Identity,
    node: Node,
    bridge: Bridge,
    metrics: Metrics,
    successor: Successor,
    kubelet_root: str,
) -> None:
    """Add the three services to a server."""
    csi_pb2_grpc.add_IdentityServicer_to_server(IdentityServicer(identity, bridge), server)
    csi_pb2_grpc.add_ControllerServicer_to_server(ControllerServicer(), server)
    csi_pb2_grpc.add_NodeServicer_to_server(
        NodeServicer(node, bridge, metrics, successor, kubelet_root=kubelet_root), server
    )

"""A relay between a conformance suite and the driver: plays the parts that the suite leaves out.

csi-sanity is written for drivers that provision volumes. Ours is for ephemeral ones, which kubelet
calls a little differently. The relay adds what kubelet adds, and takes nothing away:

* `readonly`, the pod's info in the volume context, and `vol_data.json` on disk before a publish;
* the target path: the suite's ``<directory>/target`` is kubelet's ``<directory>/mount``;
* the Controller calls that the suite makes unconditionally: CreateVolume hands the suite's
  parameters on as volume context, as a provisioner would. ControllerGetCapabilities must name one
  that the suite knows, which "UNKNOWN", the reference driver's and our answer, is not; so here it
  is the one that comes with no call. kubelet makes none of these calls.

Every other call, its answer and its status go through as they are.
"""

from __future__ import annotations

import hashlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import grpc
from typing_extensions import override

from csi._pb import csi_pb2
from fakes._pb import controller_pb2
from fusefs import mountinfo
from harness.kubelet import VOLUME_DATA, pod_info, write_volume_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PUBLISH: Final = "/csi.v1.Node/NodePublishVolume"
UNPUBLISH: Final = "/csi.v1.Node/NodeUnpublishVolume"
CAPABILITIES: Final = "/csi.v1.Controller/ControllerGetCapabilities"
_SUITE_NAME: Final = "target"
_CALL_TIMEOUT_S: Final = 30.0
# The codes after which kubelet does not know whether the volume is mounted.
_UNCERTAIN: Final = (
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
)


@attrs.frozen(kw_only=True)
class Call:
    """A publish or unpublish that went through.

    Attributes:
        code: What the driver answered.
        mounts: What was mounted at the target right after.
    """

    method: str
    code: grpc.StatusCode
    mounts: tuple[mountinfo.Mount, ...]

    @property
    def published(self) -> bool:
        """Whether the volume should be at the target now."""
        return self.method == PUBLISH and self.code is grpc.StatusCode.OK


class Relay(grpc.GenericRpcHandler):
    """Answers everything, by asking the driver or for it.

    Attributes:
        calls: Every publish and unpublish with a target.
    """

    def __init__(self, driver: grpc.Channel) -> None:
        """Ask the driver behind the channel."""
        self._driver = driver
        self._volumes: dict[str, Mapping[str, str]] = {}
        self.calls: list[Call] = []
        self._own: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            PUBLISH: _handler(self._publish),
            UNPUBLISH: _handler(self._unpublish),
            CAPABILITIES: _handler(self._capabilities),
            "/csi.v1.Controller/CreateVolume": _handler(
                self._create, controller_pb2.CreateVolumeRequest
            ),
            "/csi.v1.Controller/DeleteVolume": _handler(
                self._delete, controller_pb2.DeleteVolumeRequest
            ),
            "/csi.v1.Controller/ValidateVolumeCapabilities": _handler(
                self._validate, controller_pb2.ValidateVolumeCapabilitiesRequest
            ),
        }

    @override
    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return who answers: we where we must, else the driver."""
        method = handler_call_details.method
        return self._own.get(method) or _handler(lambda request, _: self._ask(method, request))

    def _ask(self, method: str, request: bytes) -> bytes:
        """Return the driver's answer, or raise what it answered instead."""
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._driver.unary_unary(method)
        return ask(request, timeout=_CALL_TIMEOUT_S)

    # kubelet's part of Node calls

    def _publish(self, data: bytes, _: grpc.ServicerContext) -> bytes:
        request = csi_pb2.NodePublishVolumeRequest.FromString(data)
        directory = _directory(request.target_path)
        request.readonly = True
        if directory is None:
            return self._ask(PUBLISH, request.SerializeToString())
        request.target_path = str(directory / "mount")
        request.volume_context.update(pod_info(_pod_uid(directory)))
        write_volume_data(directory, request.volume_id)
        try:
            return self._ask_for(directory, PUBLISH, request.SerializeToString())
        except grpc.RpcError as error:
            if error.code() not in _UNCERTAIN:
                (directory / VOLUME_DATA).unlink()
            raise

    def _unpublish(self, data: bytes, _: grpc.ServicerContext) -> bytes:
        request = csi_pb2.NodeUnpublishVolumeRequest.FromString(data)
        directory = _directory(request.target_path)
        if directory is None:
            return self._ask(UNPUBLISH, data)
        request.target_path = str(directory / "mount")
        answer = self._ask_for(directory, UNPUBLISH, request.SerializeToString())
        (directory / VOLUME_DATA).unlink(missing_ok=True)
        return answer

    def _ask_for(self, directory: Path, method: str, request: bytes) -> bytes:
        """Ask the driver, and note what kubelet would find afterwards."""
        code = grpc.StatusCode.OK
        try:
            return self._ask(method, request)
        except grpc.RpcError as error:
            code = error.code()
            raise
        finally:
            target = str(directory / "mount")
            mounts = tuple(mount for mount in mountinfo.mounts() if mount.target == target)
            self.calls.append(Call(method=method, code=code, mounts=mounts))

    # The provisioner's part

    def _capabilities(self, request: bytes, _: grpc.ServicerContext) -> bytes:
        answer = csi_pb2.ControllerGetCapabilitiesResponse.FromString(
            self._ask(CAPABILITIES, request)
        )
        kind = csi_pb2.ControllerServiceCapability.RPC
        for capability in answer.capabilities:
            if capability.rpc.type == kind.UNKNOWN:
                capability.rpc.type = kind.SINGLE_NODE_MULTI_WRITER
        return answer.SerializeToString()

    def _create(
        self, request: controller_pb2.CreateVolumeRequest, _: grpc.ServicerContext
    ) -> bytes:
        volume_id = f"csi-{hashlib.sha256(request.name.encode()).hexdigest()}"  # kubelet's form
        self._volumes[volume_id] = dict(request.parameters)
        volume = controller_pb2.Volume(volume_id=volume_id, volume_context=request.parameters)
        return controller_pb2.CreateVolumeResponse(volume=volume).SerializeToString()

    def _delete(
        self, request: controller_pb2.DeleteVolumeRequest, _: grpc.ServicerContext
    ) -> bytes:
        self._volumes.pop(request.volume_id, None)
        return controller_pb2.DeleteVolumeResponse().SerializeToString()

    def _validate(
        self,
        request: controller_pb2.ValidateVolumeCapabilitiesRequest,
        context: grpc.ServicerContext,
    ) -> bytes:
        if not request.volume_id:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "volume_id is missing")
        if not request.volume_capabilities:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "volume_capabilities is missing")
        if request.volume_id not in self._volumes:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such volume")
        confirmed = controller_pb2.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_capabilities=request.volume_capabilities
        )
        answer = controller_pb2.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)
        return answer.SerializeToString()


def _handler(
    answer: Callable[[Any, grpc.ServicerContext], bytes],
    message: Any = None,  # noqa: ANN401 - a class of the stubs
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler that gets a parsed message, or bytes, and passes the driver's status on."""

    def handle(request: Any, context: grpc.ServicerContext) -> bytes:  # noqa: ANN401
        try:
            return answer(request, context)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details() or "")

    parse = None if message is None else message.FromString
    return grpc.unary_unary_rpc_method_handler(handle, request_deserializer=parse)


def _directory(suite_path: str) -> Path | None:
    """Return the directory of the volume that the suite means; None for a missing path."""
    if not suite_path:
        return None
    path = Path(suite_path)
    assert path.name == _SUITE_NAME, suite_path
    return path.parent


def _pod_uid(directory: Path) -> str:
    return directory.parts[-4]  # pods/UID/volumes/kubernetes.io~csi/NAME


@contextmanager
def relaying(path: Path, driver: grpc.Channel) -> Iterator[Relay]:
    """Relay to `driver` from the socket `path` inside the block."""
    relay = Relay(driver)
    pool = ThreadPoolExecutor(4, "relay")
    server = grpc.server(pool, handlers=[relay], options=[("grpc.so_reuseport", 0)])
    hidden = path.with_name(f".{secrets.token_hex(4)}")
    server.add_insecure_port(f"unix:{hidden}")
    server.start()
    hidden.rename(path)
    try:
        yield relay
    finally:
        server.stop(0).wait()
        pool.shutdown()

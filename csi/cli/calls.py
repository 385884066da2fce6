"""gRPC calls over unix sockets, as kubelet and a node server make them, in threads.

Each call has a channel of its own: a channel that lost its server waits longer and longer before it
tries again, and here servers die on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc
import trio

from csi._pb import csi_pb2, csi_pb2_grpc
from csi.cli.errors import CallFailed
from provider._pb import v1alpha1_pb2, v1alpha1_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from csi.cli.podvolume import PodVolume

CALL_S: Final = 30.0
_PROBE_S: Final = 3.0
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # shares no back-off with an earlier channel
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
)


async def publish(
    socket: Path, volume: PodVolume, target: Path, secrets: Mapping[str, str]
) -> None:
    """Let the driver publish a volume, or take what a republish brings.

    Raises:
        CallFailed: The driver's answer.
    """
    mount = csi_pb2.VolumeCapability.MountVolume(
        volume_mount_group="" if volume.group is None else str(volume.group)
    )
    request = csi_pb2.NodePublishVolumeRequest(
        volume_id=volume.volume_id,
        target_path=str(target),
        volume_capability=csi_pb2.VolumeCapability(
            mount=mount,
            access_mode=csi_pb2.VolumeCapability.AccessMode(
                mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
            ),
        ),
        readonly=True,
        secrets=dict(secrets),
        volume_context=volume.context(),
    )
    await _call(
        socket,
        "NodePublishVolume",
        lambda channel: csi_pb2_grpc.NodeStub(channel).NodePublishVolume(request, timeout=CALL_S),
    )


async def unpublish(socket: Path, volume_id: str, target: Path) -> None:
    """Let the driver take a volume away.

    Raises:
        CallFailed: The driver's answer.
    """
    request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(target))
    await _call(
        socket,
        "NodeUnpublishVolume",
        lambda channel: csi_pb2_grpc.NodeStub(channel).NodeUnpublishVolume(request, timeout=CALL_S),
    )


async def node_ready(socket: Path) -> bool:
    """Return whether a node server answers and says that it is ready."""
    request = csi_pb2.ProbeRequest()
    try:
        answer = await _call(
            socket,
            "Probe",
            lambda channel: csi_pb2_grpc.IdentityStub(channel).Probe(request, timeout=_PROBE_S),
        )
    except CallFailed:
        return False
    return not answer.HasField("ready") or bool(answer.ready.value)


async def provider_ready(socket: Path) -> bool:
    """Return whether a provider answers."""
    request = v1alpha1_pb2.VersionRequest(version="v1alpha1")
    try:
        await _call(
            socket,
            "Version",
            lambda channel: v1alpha1_pb2_grpc.CSIDriverProviderStub(channel).Version(
                request, timeout=_PROBE_S
            ),
        )
    except CallFailed:
        return False
    return True


async def _call(socket: Path, method: str, call: Callable[[grpc.Channel], Any]) -> Any:  # noqa: ANN401 - any message
    def run() -> Any:  # noqa: ANN401
        with grpc.insecure_channel(f"unix:{socket}", options=_OPTIONS) as channel:
            return call(channel)

    try:
        return await trio.to_thread.run_sync(run, abandon_on_cancel=True)
    except grpc.RpcError as error:
        raise CallFailed(method, error.code().name, error.details() or "") from None

"""The requests that kubelet sends: one valid example, to be changed by tests."""

from __future__ import annotations

from typing import Final

from csi._pb import csi_pb2
from csi.records import (
    CLASS_KEY,
    POD_NAME_KEY,
    POD_NAMESPACE_KEY,
    POD_UID_KEY,
    SERVICE_ACCOUNT_KEY,
    Credentials,
    PublishRequest,
    TargetPath,
    UnpublishRequest,
    VolumeId,
    VolumeSpec,
)

ROOT: Final = "/var/lib/kubelet"


def target_of(pod: str = "web") -> TargetPath:
    """Return the target of the volume of a pod."""
    return TargetPath(f"{ROOT}/pods/uid-{pod}/volumes/kubernetes.io~csi/secrets/mount")


def volume_of(pod: str = "web") -> VolumeId:
    """Return the id of the volume of a pod."""
    return VolumeId(f"csi-{pod}")


def context_of(pod: str = "web", class_name: str = "vault") -> dict[str, str]:
    """Return the volume context of a pod."""
    return {
        CLASS_KEY: class_name,
        POD_NAME_KEY: pod,
        POD_NAMESPACE_KEY: "shop",
        POD_UID_KEY: f"uid-{pod}",
        SERVICE_ACCOUNT_KEY: "default",
        "csi.storage.k8s.io/ephemeral": "true",
    }


def publish_message(pod: str = "web") -> csi_pb2.NodePublishVolumeRequest:
    """Return a valid publish as it is on the wire."""
    return csi_pb2.NodePublishVolumeRequest(
        volume_id=volume_of(pod),
        target_path=target_of(pod),
        volume_capability=csi_pb2.VolumeCapability(
            mount=csi_pb2.VolumeCapability.MountVolume(),
            access_mode=csi_pb2.VolumeCapability.AccessMode(
                mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
            ),
        ),
        readonly=True,
        secrets={"clientid": "robot", "clientsecret": "canary-in-secrets"},
        volume_context=context_of(pod),
    )


def publish_request(
    pod: str = "web", *, class_name: str = "vault", credentials: Credentials | None = None
) -> PublishRequest:
    """Return a valid publish as a record."""
    return PublishRequest(
        spec=VolumeSpec(
            volume_id=volume_of(pod), target=target_of(pod), attributes=context_of(pod, class_name)
        ),
        credentials=credentials or Credentials(secrets={"clientsecret": "canary-in-secrets"}),
    )


def unpublish_message(pod: str = "web") -> csi_pb2.NodeUnpublishVolumeRequest:
    """Return a valid unpublish as it is on the wire."""
    return csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_of(pod), target_path=target_of(pod))


def unpublish_request(pod: str = "web") -> UnpublishRequest:
    """Return a valid unpublish as a record."""
    return UnpublishRequest(volume_id=volume_of(pod), target=target_of(pod))

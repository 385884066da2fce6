"""Protobuf requests to frozen records: every InvalidArgument of the CSI services is decided here.

The whole request is checked before anything is done. The order and the first words of the messages
are the reference driver's; two checks come earlier than there: the target's
layout, and ``readonly``, which the reference looks at after the class.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from csi._pb import csi_pb2
from csi.errors import InvalidRequest
from csi.records import (
    CLASS_KEY,
    POD_NAMESPACE_KEY,
    TOKENS_KEY,
    Credentials,
    PublishRequest,
    TargetPath,
    UnpublishRequest,
    VolumeId,
    VolumeSpec,
)

# One element of a path. kubelet's own names are narrower; what matters is that nothing climbs.
_ELEMENT: Final = r"(?!\.{1,2}/)[^/\0]+"
_LAYOUT: Final = re.compile(rf"/pods/{_ELEMENT}/volumes/kubernetes\.io~csi/{_ELEMENT}/mount")
_CONTEXT_FLAG: Final = "context="
# What no label has cannot be smuggled into a mount; the keeper looks closer.
_CONTEXT: Final = re.compile(r"[A-Za-z0-9_.]+(:[A-Za-z0-9_.,-]+){2,4}")
_DECIMAL: Final = re.compile(r"[0-9]{1,10}")
_MAX_GROUP: Final = 2**32 - 2  # (gid_t) -1 means "no change" to chown(2)


def parse_publish(
    message: csi_pb2.NodePublishVolumeRequest, *, kubelet_root: str
) -> PublishRequest:
    """Return the publish that `message` asks for.

    Raises:
        InvalidRequest: A field is missing or wrong.
    """
    _check_capability(message)
    volume_id = _volume_id(message.volume_id)
    target = _target(message.target_path)
    if not message.volume_context:
        raise InvalidRequest(
            field="volume_context",
            problem="Volume attributes missing in request",
            remedy="set podInfoOnMount in the CSIDriver and volumeAttributes in the pod's volume",
        )
    _check_layout(target, kubelet_root)
    _check_context(message.volume_context)
    if not message.readonly:
        raise InvalidRequest(
            field="readonly",
            problem="Readonly is not true in request",
            remedy="set csi.readOnly: true in the pod's volume",
        )
    return PublishRequest(
        spec=VolumeSpec(
            volume_id=volume_id,
            target=target,
            attributes={
                key: value for key, value in message.volume_context.items() if key != TOKENS_KEY
            },
            group=_group(message.volume_capability.mount.volume_mount_group),
        ),
        credentials=_credentials(message.secrets, message.volume_context),
        selinux_context=_selinux_context(message.volume_capability.mount.mount_flags),
    )


def parse_unpublish(message: csi_pb2.NodeUnpublishVolumeRequest) -> UnpublishRequest:
    """Return the unpublish that `message` asks for.

    The layout is not checked: nothing of ours can be elsewhere, so there is nothing to do there.

    Raises:
        InvalidRequest: A field is missing.
    """
    return UnpublishRequest(
        volume_id=_volume_id(message.volume_id), target=_target(message.target_path)
    )


def _check_capability(message: csi_pb2.NodePublishVolumeRequest) -> None:
    if not message.HasField("volume_capability"):
        raise InvalidRequest(
            field="volume_capability",
            problem="Volume capability missing in request",
            remedy="set volume_capability with a mount access type",
        )
    if message.volume_capability.HasField("block"):
        raise InvalidRequest(
            field="volume_capability.block",
            problem="Volume capability not supported",
            remedy="this driver serves files; use volumeMode: Filesystem",
        )
    if not message.volume_capability.HasField("mount"):
        raise InvalidRequest(
            field="volume_capability.mount",
            problem="Volume capability missing in request",
            remedy="set volume_capability.mount",
        )


def _volume_id(value: str) -> VolumeId:
    if not value:
        raise InvalidRequest(
            field="volume_id", problem="Volume ID missing in request", remedy="set volume_id"
        )
    return VolumeId(value)


def _target(value: str) -> TargetPath:
    if not value:
        raise InvalidRequest(
            field="target_path", problem="Target path missing in request", remedy="set target_path"
        )
    return TargetPath(value)


def _check_layout(target: TargetPath, kubelet_root: str) -> None:
    """Require kubelet's layout; the keeper requires it again, from the directory that it holds."""
    root = kubelet_root.rstrip("/")
    if not target.startswith(root) or not _LAYOUT.fullmatch(target, len(root)):
        raise InvalidRequest(
            field="target_path",
            problem=f"Target path {target!r} is not in kubelet's layout",
            remedy=f"must be {root}/pods/UID/volumes/kubernetes.io~csi/NAME/mount; "
            "set --kubelet-root if kubelet's root is another directory",
        )


def _check_context(context: Mapping[str, str]) -> None:
    if not context.get(CLASS_KEY):
        raise InvalidRequest(
            field=f'volume_context["{CLASS_KEY}"]',
            problem="secretProviderClass is not set",
            remedy=f"set volumeAttributes.{CLASS_KEY} in the pod's volume",
        )
    if not context.get(POD_NAMESPACE_KEY):
        raise InvalidRequest(
            field=f'volume_context["{POD_NAMESPACE_KEY}"]',
            problem="Pod namespace missing in request",
            remedy="set podInfoOnMount: true in the CSIDriver",
        )


def _group(value: str) -> int | None:
    if not value:
        return None
    if not _DECIMAL.fullmatch(value) or int(value) > _MAX_GROUP:
        raise InvalidRequest(
            field="volume_capability.mount.volume_mount_group",
            problem=f"Volume mount group {value!r} is not valid",
            remedy=f"must be a number from 0 to {_MAX_GROUP} (the pod's fsGroup)",
        )
    return int(value)


def _selinux_context(mount_flags: Sequence[str]) -> str:
    """Return the label that kubelet asks for; other mount options are not for these volumes."""
    contexts = [flag for flag in mount_flags if flag.startswith(_CONTEXT_FLAG)]
    if not contexts:
        return ""
    context = contexts[-1].removeprefix(_CONTEXT_FLAG).strip('"')  # kubelet quotes it
    if not _CONTEXT.fullmatch(context):
        raise InvalidRequest(
            field="volume_capability.mount.mount_flags",
            problem=f"SELinux context {context!r} is not valid",
            remedy="must be USER:ROLE:TYPE[:LEVEL] (the pod's seLinuxOptions)",
        )
    return context


def _credentials(secrets: Mapping[str, str], context: Mapping[str, str]) -> Credentials:
    """Kubelet puts tokens into the secrets when the CSIDriver asks for it, else in the context."""
    tokens = secrets.get(TOKENS_KEY) or context.get(TOKENS_KEY, "")
    return Credentials(secrets=dict(secrets), tokens=tokens)

"""Requests that are wrong in themselves, over the real socket: refused, without effect, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import grpc
import pytest

from csi._pb import csi_pb2
from harness.node import CALL_TIMEOUT_S, CLASS
from harness.refusals import Refusal, check_accepted, check_refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.kubelet import PodVolume
    from harness.node import Node

Changes = dict[str, Any]
MOUNT: Final = csi_pb2.VolumeCapability.MountVolume


@attrs.frozen(kw_only=True)
class Row:
    """One bad input: what differs from a valid request, and the answer."""

    changes: Callable[[PodVolume], Changes]
    refusal: Refusal


def row(name: str, changes: Callable[[PodVolume], Changes], **answer: str) -> Any:  # noqa: ANN401
    """Return a parameter of the table."""
    refusal = Refusal(code=grpc.StatusCode.INVALID_ARGUMENT, **answer)
    return pytest.param(Row(changes=changes, refusal=refusal), id=name)


def context_without(key: str) -> Callable[[PodVolume], Changes]:
    """Return the change that leaves a key out of the volume context."""
    return lambda volume: {
        "volume_context": {
            name: value for name, value in volume.context(CLASS).items() if name != key
        }
    }


def layout_row(name: str, path: Callable[[PodVolume], str]) -> Any:  # noqa: ANN401
    """Return the row of a target that does not follow kubelet's layout."""
    return row(
        name,
        lambda volume: {"target_path": path(volume)},
        starts="Target path ",
        field="target_path",
        remedy="/pods/UID/volumes/kubernetes.io~csi/NAME/mount; set --kubelet-root",
    )


def group_row(name: str, group: str) -> Any:  # noqa: ANN401
    """Return the row of a group that is none."""
    return row(
        name,
        lambda _: {"volume_capability": {"mount": MOUNT(volume_mount_group=group)}},
        starts=f"Volume mount group {group!r} is not valid",
        field="volume_capability.mount.volume_mount_group",
        remedy="must be a number from 0 to 4294967294",
    )


ROWS: Final = [
    row(
        "missing-capability",
        lambda _: {"volume_capability": None},
        starts="Volume capability missing in request",
        field="volume_capability",
        remedy="set volume_capability with a mount access type",
    ),
    row(
        "capability-without-access-type",
        lambda _: {"volume_capability": {}},
        starts="Volume capability missing in request",
        field="volume_capability.mount",
        remedy="set volume_capability.mount",
    ),
    row(
        "block-capability",
        lambda _: {"volume_capability": {"block": {}}},
        starts="Volume capability not supported",
        field="volume_capability.block",
        remedy="use volumeMode: Filesystem",
    ),
    row(
        "empty-volume-id",
        lambda _: {"volume_id": ""},
        starts="Volume ID missing in request",
        field="volume_id",
        remedy="set volume_id",
    ),
    row(
        "empty-target",
        lambda _: {"target_path": ""},
        starts="Target path missing in request",
        field="target_path",
        remedy="set target_path",
    ),
    row(
        "empty-context",
        lambda _: {"volume_context": {}},
        starts="Volume attributes missing in request",
        field="volume_context",
        remedy="set podInfoOnMount in the CSIDriver",
    ),
    row(
        "missing-class",
        context_without("secretProviderClass"),
        starts="secretProviderClass is not set",
        field='volume_context["secretProviderClass"]',
        remedy="set volumeAttributes.secretProviderClass",
    ),
    row(
        "empty-class",
        lambda volume: {"volume_context": volume.context("")},
        starts="secretProviderClass is not set",
        field='volume_context["secretProviderClass"]',
        remedy="set volumeAttributes.secretProviderClass",
    ),
    row(
        "missing-namespace",
        context_without("csi.storage.k8s.io/pod.namespace"),
        starts="Pod namespace missing in request",
        field='volume_context["csi.storage.k8s.io/pod.namespace"]',
        remedy="set podInfoOnMount: true in the CSIDriver",
    ),
    row(
        "not-read-only",
        lambda _: {"readonly": False},
        starts="Readonly is not true in request",
        field="readonly",
        remedy="set csi.readOnly: true in the pod's volume",
    ),
    group_row("group-by-name", "staff"),
    group_row("group-of-no-change", "4294967295"),
    layout_row("target-elsewhere", lambda _: "/tmp/mount"),
    layout_row("target-relative", lambda volume: str(volume.target).lstrip("/")),
    layout_row("target-of-other-plugin", lambda volume: _swapped(volume, "csi", "nfs")),
    layout_row("target-without-mount", lambda volume: str(volume.directory)),
    layout_row("target-below-mount", lambda volume: f"{volume.target}/mount"),
    layout_row("target-with-slash-at-end", lambda volume: f"{volume.target}/"),
    layout_row(
        "target-climbs",
        lambda volume: f"{volume.directory}/../{volume.directory.name}/mount",
    ),
    layout_row("target-of-no-pod", lambda volume: _swapped(volume, volume.pod_uid, "..")),
]


def _swapped(volume: PodVolume, old: str, new: str) -> str:
    return str(volume.target).replace(old, new)


@pytest.mark.parametrize("case", ROWS)
def test_bad_request_leaves_nothing(node: Node, volume: PodVolume, case: Row) -> None:
    """A bad request is refused with field and remedy; put right, the same volume is published."""
    check_refused(node, volume, case.refusal, **case.changes(volume))
    check_accepted(node, volume)


def test_first_missing_field_is_told(node: Node, volume: PodVolume) -> None:
    """Of several missing fields the answer names the one that the reference names."""
    refusal = Refusal(
        code=grpc.StatusCode.INVALID_ARGUMENT,
        starts="Volume capability missing in request",
        field="volume_capability",
        remedy="set volume_capability",
    )
    check_refused(
        node,
        volume,
        refusal,
        volume_capability=None,
        volume_id="",
        target_path="",
        volume_context={},
        readonly=False,
    )
    volume.remove()


@pytest.mark.parametrize("field", ["volume_id", "target_path"])
def test_unpublish_needs_both_names(node: Node, field: str) -> None:
    """An unpublish without volume or target is refused by name."""
    fields = {"volume_id": "v", "target_path": "/t"}
    request = csi_pb2.NodeUnpublishVolumeRequest(**{**fields, field: ""})
    with pytest.raises(grpc.RpcError) as caught:
        node.calls.NodeUnpublishVolume(request, timeout=CALL_TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.details() or "").endswith(f"missing in request: {field}: set {field}")

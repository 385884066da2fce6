"""The SecretProviderClassPodStatus of a volume: what it shall say. Synchronous, without I/O.

It tells tools which object versions a pod has mounted. Names, label and fields are the reference
driver's; unlike it, an object is changed only where it says something else, and
what others put there (labels, annotations, finalizers) stays.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from csi.records import ObjectVersion, TargetPath, VolumeSpec

_API_VERSION: Final = "secrets-store.csi.x-k8s.io/v1"
_KIND: Final = "SecretProviderClassPodStatus"
_NODE_LABEL: Final = "internal.secrets-store.csi.k8s.io/node-name"

Document = dict[str, Any]


@attrs.frozen(kw_only=True)
class StatusKey:
    """One object: all volumes of a pod with one class share it, as in the reference."""

    namespace: str
    pod: str
    class_name: str

    @property
    def name(self) -> str:
        """The name of the object."""
        return f"{self.pod}-{self.namespace}-{self.class_name}"


@attrs.frozen(kw_only=True)
class PodStatus:
    """What one object shall say."""

    key: StatusKey
    pod_uid: str
    node_id: str
    target: TargetPath
    versions: tuple[ObjectVersion, ...]


def key_of(spec: VolumeSpec) -> StatusKey | None:
    """Return the object of a volume; None when kubelet did not say whose volume it is."""
    if not (spec.namespace and spec.pod and spec.pod_uid and spec.class_name):
        return None
    return StatusKey(namespace=spec.namespace, pod=spec.pod, class_name=spec.class_name)


def desired_status(
    key: StatusKey,
    volumes: Iterable[tuple[VolumeSpec, tuple[ObjectVersion, ...]]],
    *,
    node_id: str,
) -> PodStatus | None:
    """Return what an object shall say, given all volumes that are shown; None: nothing.

    Of several volumes the one with the first target counts, whichever changed last: two that took
    turns would be written at every change of either.
    """
    mine = [(spec, versions) for spec, versions in volumes if key_of(spec) == key]
    if not mine:
        return None
    spec, versions = min(mine, key=lambda each: each[0].target)
    return PodStatus(
        key=key,
        pod_uid=spec.pod_uid,
        node_id=node_id,
        target=spec.target,
        versions=tuple(sorted(versions, key=lambda version: (version.id, version.version))),
    )


def new_document(status: PodStatus) -> Document:
    """Return the object as it is created."""
    bare = {
        "apiVersion": _API_VERSION,
        "kind": _KIND,
        "metadata": {"name": status.key.name, "namespace": status.key.namespace},
    }
    return merged(bare, status)


def merged(existing: Mapping[str, Any], status: PodStatus) -> Document:
    """Return an existing object with what it shall say; equal to it if it says so already."""
    metadata = dict(existing.get("metadata") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), _NODE_LABEL: status.node_id}
    metadata["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "Pod", "name": status.key.pod, "uid": status.pod_uid}
    ]
    said = {
        "podName": status.key.pod,
        "secretProviderClassName": status.key.class_name,
        "mounted": True,
        "targetPath": status.target,
        "objects": [{"id": each.id, "version": each.version} for each in status.versions],
    }
    return {**existing, "metadata": metadata, "status": said}

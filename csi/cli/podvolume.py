"""One pod volume as kubelet describes it: ids, paths, what it writes and what it sends. Pure.

Names and forms are kubelet's for an inline ephemeral volume.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

if TYPE_CHECKING:
    from pathlib import Path

_CSI: Final = "kubernetes.io~csi"


@attrs.frozen(kw_only=True)
class PodVolume:
    """An inline CSI volume of a pod.

    Attributes:
        volume: Its name in the pod.
        provider_class: The SecretProviderClass that it names.
        group: The pod's `fsGroup`.
    """

    pod: str
    pod_uid: str
    namespace: str
    service_account: str
    volume: str
    provider_class: str
    driver: str
    node: str
    group: int | None = None

    @property
    def volume_id(self) -> str:
        """What kubelet calls an inline volume: a digest of the pod and the volume's name."""
        return f"csi-{_digest(self.pod_uid + self.volume)}"

    def directory(self, kubelet_root: Path) -> Path:
        """Return the folder that kubelet makes."""
        return kubelet_root / "pods" / self.pod_uid / "volumes" / _CSI / self.volume

    def target(self, kubelet_root: Path) -> Path:
        """Return where the driver shall mount."""
        return self.directory(kubelet_root) / "mount"

    def data(self) -> bytes:
        """Return the content of ``vol_data.json``, which kubelet writes beside the target."""
        return msgspec.json.encode(
            {
                "attachmentID": f"csi-{_digest(self.volume_id + self.driver + self.node)}",
                "driverName": self.driver,
                "nodeName": self.node,
                "specVolID": self.volume,
                "volumeHandle": self.volume_id,
                "volumeLifecycleMode": "Ephemeral",
            }
        )

    def context(self) -> dict[str, str]:
        """Return the volume context: the pod's attributes, and the pod (`podInfoOnMount`)."""
        return {
            "secretProviderClass": self.provider_class,
            "csi.storage.k8s.io/pod.name": self.pod,
            "csi.storage.k8s.io/pod.namespace": self.namespace,
            "csi.storage.k8s.io/pod.uid": self.pod_uid,
            "csi.storage.k8s.io/serviceAccount.name": self.service_account,
            "csi.storage.k8s.io/ephemeral": "true",
        }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

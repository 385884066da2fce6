"""kubelet's part on disk: its root as a shared mount, and what it prepares round each call."""

from __future__ import annotations

import json
import subprocess
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from fusefs import mountinfo, syscalls

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

DRIVER: Final = "secrets-store.csi.k8s.io"
NODE: Final = "node-1"
NAMESPACE: Final = "shop"
VOLUME_DATA: Final = "vol_data.json"


@attrs.frozen(kw_only=True)
class PodVolume:
    """A CSI volume of a pod, as kubelet knows it."""

    volume_id: str
    pod_uid: str
    directory: Path

    @property
    def target(self) -> Path:
        """What kubelet sends as `target_path`."""
        return self.directory / "mount"

    def context(self, class_name: str, **attributes: str) -> dict[str, str]:
        """Return the volume context: the pod's attributes and what `podInfoOnMount` adds."""
        return {
            "secretProviderClass": class_name,
            **attributes,
            **pod_info(self.pod_uid),
        }

    def prepare(self, **changes: str) -> None:
        """Make the directory and write `vol_data.json`, which kubelet does before it calls."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_volume_data(self.directory, self.volume_id, **changes)

    def remove(self) -> None:
        """Remove what kubelet made, as it does after it has unpublished; nothing else may be left.

        Raises:
            OSError: Something was left in the way.
        """
        remove_volume_directory(self.directory)
        for directory in self.directory.parents[:3]:
            directory.rmdir()


def pod_info(pod_uid: str) -> dict[str, str]:
    """Return the keys of a volume context that say whose the volume is."""
    return {
        "csi.storage.k8s.io/pod.name": "web-0",
        "csi.storage.k8s.io/pod.namespace": NAMESPACE,
        "csi.storage.k8s.io/pod.uid": pod_uid,
        "csi.storage.k8s.io/serviceAccount.name": "web",
        "csi.storage.k8s.io/ephemeral": "true",
    }


def write_volume_data(directory: Path, volume_id: str, **changes: str) -> None:
    """Write `vol_data.json` as kubelet does for an ephemeral volume, with `changes`."""
    data = {
        "attachmentID": "",
        "driverName": DRIVER,
        "nodeName": NODE,
        "specVolID": directory.name,
        "volumeHandle": volume_id,
        "volumeLifecycleMode": "Ephemeral",
    }
    (directory / VOLUME_DATA).write_text(json.dumps(data | changes), encoding="utf-8")


def remove_volume_directory(directory: Path) -> None:
    """Remove target, data and directory of a volume; the target must be empty or absent."""
    target = directory / "mount"
    if target.exists():
        target.rmdir()
    (directory / VOLUME_DATA).unlink(missing_ok=True)
    directory.rmdir()


@attrs.frozen(kw_only=True)
class KubeletRoot:
    """kubelet's root directory."""

    path: Path

    def volume(self, *, name: str = "secrets", pod_uid: str | None = None) -> PodVolume:
        """Return a volume of a new pod; nothing is on disk yet."""
        uid = pod_uid or str(uuid.uuid4())
        return PodVolume(
            volume_id=f"csi-{uuid.uuid4().hex}",
            pod_uid=uid,
            directory=self.path / "pods" / uid / "volumes" / "kubernetes.io~csi" / name,
        )

    def prepared(self) -> PodVolume:
        """Return a volume of a new pod, as it is when kubelet calls."""
        volume = self.volume()
        volume.prepare()
        return volume

    def mounts(self) -> list[mountinfo.Mount]:
        """Return the mounts below the root, lowest first."""
        below = f"{self.path}/"
        return [mount for mount in mountinfo.mounts() if mount.target.startswith(below)]


@contextmanager
def kubelet_root(path: Path) -> Iterator[KubeletRoot]:
    """Make `path` a shared mount with a `pods` directory, as on a node; at the end unmount all."""
    (path / "pods").mkdir(parents=True)
    _run("mount", "--bind", path, path)
    root = KubeletRoot(path=path)
    try:
        # Private first: below a shared `/` it starts as its peer, and each mount would come twice.
        _run("mount", "--make-private", path)
        _run("mount", "--make-shared", path)
        yield root
    finally:
        for mount in reversed(root.mounts()):
            _detach(mount.target, force=mount.is_ours)
        _detach(str(path), force=False)


def _detach(target: str, *, force: bool) -> None:
    """Take a mount off, after aborting it if it is a volume: its server may be gone.

    By system call: umount(8) would ask the file system about itself, and wait for the answer.
    """
    flags = syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW
    syscalls.umount2(target, flags | (syscalls.MNT_FORCE if force else 0))


def _run(program: str, *arguments: str | os.PathLike[str]) -> None:
    subprocess.run([program, *arguments], check=True, timeout=10)

"""The node itself: what it is to those inside and outside, and how its parts are restarted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from cluster import remains
from cluster.node import NodeFailed, node
from cluster.pods import container, pod

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.api import Thing
    from cluster.cluster import Cluster
    from cluster.material import Material


def container_of(running: Thing) -> str:
    """Return the id of a pod's only container."""
    [status] = running["status"]["containerStatuses"]
    return str(status["containerID"])


def restarted(running: Thing | None, before: str) -> bool:
    """Return whether a pod has another container than before, which is ready."""
    statuses = (running or {}).get("status", {}).get("containerStatuses", [])
    return any(each["ready"] and each["containerID"] != before for each in statuses)


def test_host_is_as_it_was_before(cluster: Cluster, host: remains.Host, folder: Path) -> None:
    """With a pod running, no mount, device, setting or folder of the machine is another."""
    cluster.apply(pod("any", container()))
    cluster.wait_for_ready("any")
    assert remains.look(folder) == host
    cluster.delete("pod", "any")


def test_node_sees_nothing_of_the_host(cluster: Cluster) -> None:
    """No mount of the machine is in the node's namespace, and no process is in sight."""
    points = {line.split(" ")[4] for line in cluster.node.mountinfo().splitlines()}
    assert "/var/lib/kubelet" in points
    assert not [point for point in points if point.startswith(("/mnt", "/home", "/work"))]
    assert cluster.node.run("cat", "/proc/1/comm") == "sleep\n"
    assert cluster.node.run("cat", "/proc/sys/kernel/hostname") == "node-1\n"


def test_pod_outlives_kubelet(cluster: Cluster) -> None:
    """When kubelet is restarted, the pod's container is the one from before."""
    cluster.apply(pod("lasting", container()))
    before = container_of(cluster.wait_for_ready("lasting"))
    cluster.node.processes["kubelet"].restart()
    cluster.apply(pod("later", container()))
    cluster.wait_for_ready("later")
    assert container_of(cluster.wait_for_ready("lasting")) == before
    cluster.delete("pod", "lasting")
    cluster.delete("pod", "later")


def test_pod_runs_again_after_reboot(cluster: Cluster) -> None:
    """The power is cut: kubelet finds another boot and starts the pod's container anew."""
    cluster.apply(pod("patient", container()))
    before = container_of(cluster.wait_for_ready("patient"))
    boot = cluster.node.run("cat", "/proc/sys/kernel/random/boot_id")
    cluster.node.reboot()
    assert cluster.node.run("cat", "/proc/sys/kernel/random/boot_id") != boot
    cluster.wait_until(
        "pods", "patient", lambda found: restarted(found, before), "the container is another"
    )
    assert cluster.execute("patient", "echo", "again") == "again\n"
    cluster.delete("pod", "patient")


def test_failed_start_is_told_and_leaves_nothing(made: Material, tmp_path: Path) -> None:
    """Without a program the start fails with its name, and the folder is gone."""
    folder = tmp_path / "node"
    (tmp_path / "none").mkdir()
    before = remains.look(folder)
    broken = attrs.evolve(made, programs=tmp_path / "none")
    with (
        pytest.raises(NodeFailed, match="kube-apiserver"),
        node(folder, logs=tmp_path, material=broken),
    ):
        pass
    assert remains.look(folder) == before
    assert not folder.exists()

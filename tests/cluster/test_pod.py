"""Pods on the node do what pods do, as far as scenarios build on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cluster import readers
from cluster.pods import container, pod
from harness.waiting import eventually

if TYPE_CHECKING:
    from cluster.cluster import Cluster

ASK_API_SERVER = """
import json, os, pathlib, ssl, urllib.request
account = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
request = urllib.request.Request(
    f"https://{os.environ['KUBERNETES_SERVICE_HOST']}/apis/authentication.k8s.io/v1/selfsubjectreviews",
    data=json.dumps(
        {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    ).encode(),
    headers={
        "Authorization": "Bearer " + (account / "token").read_text(),
        "Content-Type": "application/json",
    },
)
trusted = ssl.create_default_context(cafile=account / "ca.crt")
print(urllib.request.urlopen(request, context=trusted).read().decode())
"""


def test_pod_becomes_ready_and_is_entered(cluster: Cluster) -> None:
    """A pod is scheduled, started and ready, a program runs in it, and it goes."""
    cluster.apply(pod("plain", container()))
    ready = cluster.wait_for_ready("plain")
    assert ready["spec"]["nodeName"] == "node-1"
    assert cluster.execute("plain", "cat", "/etc/hostname") == "plain\n"
    cluster.delete("pod", "plain")
    assert cluster.api.find("/api/v1/namespaces/default/pods/plain") is None


def test_pod_reaches_the_api_server(cluster: Cluster) -> None:
    """A client in a pod finds the API server by the service, trusts it and is known to it."""
    cluster.apply(pod("client", container()))
    cluster.wait_for_ready("client")
    answer = json.loads(cluster.execute("client", "python3", "-c", ASK_API_SERVER))
    assert answer["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
    cluster.delete("pod", "client")


def test_mount_of_a_container_reaches_the_node(cluster: Cluster) -> None:
    """What a privileged container mounts in a shared folder is mounted on the node too."""
    shared = "/var/lib/kubelet/shared-by-test"
    mounter = container(
        *("sh", "-c", "mount -t tmpfs shared /shared && exec sleep infinity"),
        securityContext={"privileged": True},
        volumeMounts=[
            {"name": "shared", "mountPath": "/shared", "mountPropagation": "Bidirectional"}
        ],
    )
    volume = {"name": "shared", "hostPath": {"path": shared, "type": "DirectoryOrCreate"}}
    cluster.apply(pod("mounter", mounter, volumes=[volume]))
    cluster.wait_for_ready("mounter")
    eventually(lambda: f" {shared} " in cluster.node.mountinfo(), "the mount is on the node")
    cluster.delete("pod", "mounter")
    cluster.node.run("umount", shared)


def test_readers_tell_of_every_failure(cluster: Cluster) -> None:
    """The four readers count reads, and failures while the file is away."""
    mounts = [{"name": "data", "mountPath": "/data"}]
    writer = container("sh", "-c", "echo secret >/data/file", name="writer", volumeMounts=mounts)
    cluster.apply(
        pod(
            "readers",
            *readers.containers(["/data/file"], mounts),
            initContainers=[writer],
            volumes=[{"name": "data", "emptyDir": {}}],
        )
    )
    cluster.wait_for_ready("readers")
    there = readers.now_ms()
    eventually(lambda: readers.now_ms() > there + 1000, "a second of reads")
    gone = readers.now_ms()
    cluster.execute("readers", "rm", "/data/file", container="c")
    removed = readers.now_ms()
    eventually(lambda: readers.now_ms() > removed + 500, "half a second of failures")
    for program in readers.PROGRAMS:
        good = readers.reads(cluster, "readers", program, begin_ms=there, end_ms=gone - 100)
        assert good.attempts > 50, program
        assert good.errors == 0, program
        bad = readers.reads(cluster, "readers", program, begin_ms=removed, end_ms=removed + 400)
        assert bad.errors > 10, program
        assert "/data/file" in bad.last_error, program
    cluster.delete("pod", "readers")

"""The configuration files of the programs on the node, written into its `/etc/kubernetes`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml

from cluster import certificates
from cluster.addresses import CONFIG, PAUSE_IMAGE, POD_SUBNET, RUNTIME

if TYPE_CHECKING:
    from pathlib import Path

CONTAINERD = f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true # a profile would be loaded into the kernel, which is not the node's own
  restrict_oom_score_adj = true # not every root may lower it
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{CONFIG}/cni"
"""


def write(folder: Path) -> None:
    """Write everything that the node's programs read, certificates included."""
    certificates.write(folder)
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet()), encoding="utf-8")
    (folder / "containerd.toml").write_text(CONTAINERD, encoding="utf-8")
    (folder / "cni").mkdir(exist_ok=True)
    (folder / "cni" / "pods.conflist").write_text(json.dumps(_network()), encoding="utf-8")


def _kubelet() -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "x509": {"clientCAFile": f"{CONFIG}/ca.crt"},
        },
        "tlsCertFile": f"{CONFIG}/kubelet.crt",
        "tlsPrivateKeyFile": f"{CONFIG}/kubelet.key",
        "containerRuntimeEndpoint": RUNTIME,
        # The machine may have either version of cgroups, and kubelet refuses the first unasked. Its
        # own levels between node and container are left out: there are no guarantees to keep here.
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        # Names resolve to nothing, and at once: nobody listens there.
        "clusterDNS": ["127.0.0.1"],
        "resolvConf": "/etc/resolv.conf",
        # The disk is the machine's: its being full is no reason to evict pods or remove images.
        "evictionHard": {
            "imagefs.available": "0%",
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "readOnlyPort": 0,
        # With it volumes are published again, which brings what the next refresh needs.
        "syncFrequency": "10s",
        # Scenarios kill containers again and again; by default the fourth one would wait a minute.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
    }


def _network() -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": POD_SUBNET}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni",  # gone after a reboot, as the pods' networks are
        },
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}

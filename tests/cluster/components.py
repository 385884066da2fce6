"""How each program of the node is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cluster.addresses import (
    ADDRESS,
    API_PORT,
    CONFIG,
    NODE,
    RUNTIME,
    SERVICE_SUBNET,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ETCD: Final = "http://127.0.0.1:2379"
_ISSUER: Final = "https://kubernetes.default.svc"

COMMANDS: Final[Mapping[str, Sequence[str]]] = {
    "etcd": (
        "etcd",
        "--logger=zap",
        "--data-dir=/var/lib/etcd",
        "--unsafe-no-fsync",  # a power cut of the node is none of the disk
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
    ),
    "containerd": ("containerd", f"--config={CONFIG}/containerd.toml"),
    "kube-apiserver": (
        "kube-apiserver",
        f"--etcd-servers={_ETCD}",
        f"--advertise-address={ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICE_SUBNET}",
        f"--client-ca-file={CONFIG}/ca.crt",
        f"--tls-cert-file={CONFIG}/apiserver.crt",
        f"--tls-private-key-file={CONFIG}/apiserver.key",
        f"--kubelet-certificate-authority={CONFIG}/ca.crt",
        f"--kubelet-client-certificate={CONFIG}/kubelet-client.crt",
        f"--kubelet-client-key={CONFIG}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={_ISSUER}",
        f"--service-account-key-file={CONFIG}/service-accounts.key",
        f"--service-account-signing-key-file={CONFIG}/service-accounts.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
    ),
    "kube-controller-manager": (
        "kube-controller-manager",
        f"--kubeconfig={CONFIG}/controller-manager.kubeconfig",
        f"--root-ca-file={CONFIG}/ca.crt",
        f"--service-account-private-key-file={CONFIG}/service-accounts.key",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--kube-api-qps=200",  # at the default 20 its own start takes five seconds
        "--kube-api-burst=200",
    ),
    "kube-scheduler": (
        "kube-scheduler",
        f"--kubeconfig={CONFIG}/scheduler.kubeconfig",
        "--leader-elect=false",
    ),
    "kubelet": (
        "kubelet",
        f"--config={CONFIG}/kubelet.yaml",
        f"--kubeconfig={CONFIG}/kubelet.kubeconfig",
        f"--hostname-override={NODE}",
        f"--node-ip={ADDRESS}",
        "--v=2",
    ),
}
IMPORT_IMAGE: Final = (
    "ctr",
    f"--address={RUNTIME.removeprefix('unix://')}",
    "--namespace=k8s.io",
    "images",
    "import",
    "-",
)

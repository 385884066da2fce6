"""The certificates of a cluster, and the kubeconfig files of those who call its API server.

Kubernetes reads who somebody is from a client certificate: the common name is the user, the
organization the group. Authorization is as on a real cluster (Node, RBAC), so the names matter.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Final

import trustme
import yaml

from cluster.addresses import ADDRESS, API_URL, NODE, SERVICE_ADDRESS

if TYPE_CHECKING:
    from pathlib import Path

ADMINISTRATORS: Final = "system:masters"
# File name: user and group.
CALLERS: Final = {
    "admin": ("administrator", ADMINISTRATORS),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}
SERVER_NAMES: Final = (
    ADDRESS,
    SERVICE_ADDRESS,
    "127.0.0.1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
)


def write(folder: Path) -> None:
    """Write everything into a folder: `.crt` and `.key` of servers, `.kubeconfig` of callers."""
    authority = trustme.CA(organization_name="akvfs test cluster")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    _write_pair(folder, "apiserver", authority.issue_cert(*SERVER_NAMES))
    _write_pair(folder, "kubelet", authority.issue_cert(NODE, ADDRESS))
    _write_pair(folder, "service-accounts", authority.issue_cert("service-accounts"))
    caller = authority.issue_cert(
        "apiserver", common_name="apiserver-kubelet-client", organization_name=ADMINISTRATORS
    )
    _write_pair(folder, "kubelet-client", caller)
    for name, (user, group) in CALLERS.items():
        leaf = authority.issue_cert(name, common_name=user, organization_name=group)
        path = folder / f"{name}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(_kubeconfig(authority, leaf)), encoding="utf-8")


def _write_pair(folder: Path, name: str, leaf: trustme.LeafCert) -> None:
    leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
    key = folder / f"{name}.key"
    key.touch(mode=0o600)
    leaf.private_key_pem.write_to_path(key)


def _kubeconfig(authority: trustme.CA, leaf: trustme.LeafCert) -> dict[str, object]:
    def base64(blob: trustme.Blob) -> str:
        return b64encode(blob.bytes()).decode()

    cluster = {"server": API_URL, "certificate-authority-data": base64(authority.cert_pem)}
    user = {
        "client-certificate-data": base64(leaf.cert_chain_pems[0]),
        "client-key-data": base64(leaf.private_key_pem),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "node", "cluster": cluster}],
        "users": [{"name": "caller", "user": user}],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": "caller"}}],
        "current-context": "node",
    }

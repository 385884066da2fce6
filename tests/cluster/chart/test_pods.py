"""What runs on a node, and with which privileges."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from cluster.chart.rendering import (
    CHART,
    CLOUD,
    DAEMONSETS,
    KEEPER,
    NODE,
    PROVIDER,
    container_of,
    template_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cluster.chart.rendering import Helm

DRIVER: Final = "secrets-store.csi.k8s.io"


def test_chart_passes_strict_lint(helm: Helm) -> None:
    """Strict lint has nothing to say about the chart."""
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART))


def test_release_leaves_the_keeper_alone(helm: Helm, tmp_path: Path) -> None:
    """A new chart with another node server, provider and settings has the same keeper pods.

    To the byte: Kubernetes would not mind another order of keys, but then this proves more.
    """
    newer = tmp_path / "chart"
    shutil.copytree(CHART, newer)
    about = yaml.safe_load((newer / "Chart.yaml").read_text())
    about.update(version="0.2.0", appVersion="0.2.0")
    (newer / "Chart.yaml").write_text(yaml.safe_dump(about))
    values = {
        "enableSecretRotation": True,
        "logFormatJSON": True,
        "logLevel": "debug",
        "commonLabels": {"team": "a"},
        "tokenRequests": [{"audience": "a"}],
        "maxCallRecvMsgSize": 1024,
        "rotationPollInterval": "5m",
        "linux": {
            "image": {"repository": "registry.example/a", "digest": f"sha256:{'0' * 64}"},
            "driver": {"resources": {"limits": {"memory": "1Gi"}}},
            "env": [{"name": "A", "value": "b"}],
            "providersDir": "/var/run/p",
            "volumes": [{"name": "a", "emptyDir": {}}],
            "podLabels": {"team": "a"},
            "podAnnotations": {"note": "a"},
            "priorityClassName": "",
        },
        "provider": {"cloudFiles": {"lab.json": CLOUD}},
    }
    assert keeper_text(helm, values, newer) == keeper_text(helm, {}, CHART)
    before, after = helm.render(), helm.render(values, chart=newer)
    for changed in (NODE, PROVIDER):
        assert template_of(after, changed) != template_of(before, changed)


def keeper_text(helm: Helm, values: Mapping[str, object], chart: Path) -> str:
    """Return the keeper's pod template as helm writes it."""
    shown = ("template", "akvfs", str(chart), "--show-only=templates/keeper.yaml")
    _, found, text = helm.run(*shown, values=values).partition("\n  template:\n")
    assert found
    return text


def test_keeper_follows_its_own_image(helm: Helm) -> None:
    """The keeper's image value reaches the keeper and nobody else."""
    plain = helm.render()
    other = helm.render({"keeper": {"image": {"repository": "registry.example/k", "tag": "9"}}})
    assert container_of(other, KEEPER)["image"] == "registry.example/k:9"
    for name in (NODE, PROVIDER):
        assert template_of(other, name) == template_of(plain, name)


def test_images_by_tag_and_by_digest(helm: Helm) -> None:
    """A digest goes before a tag; the provider has the node server's image unless it names one."""
    digest = f"sha256:{'a' * 64}"
    linux = {"image": {"repository": "registry.example/a", "tag": "1", "digest": digest}}
    shared = helm.render({"linux": linux})
    assert container_of(shared, NODE)["image"] == f"registry.example/a@{digest}"
    assert container_of(shared, PROVIDER)["image"] == f"registry.example/a@{digest}"
    own = {"image": {"repository": "registry.example/p", "tag": "2"}}
    apart = helm.render({"linux": linux, "provider": own})
    assert container_of(apart, PROVIDER)["image"] == "registry.example/p:2"


def test_only_the_keeper_has_privileges(helm: Helm) -> None:
    """Node server and provider are uid 0 without capabilities, in namespaces of their own."""
    objects = helm.render({"linux": {"additionalProvidersDirs": []}})
    for name in (NODE, PROVIDER):
        spec = template_of(objects, name)["spec"]
        assert not spec.keys() & {"hostPID", "hostNetwork", "hostIPC", "initContainers"}
        container = container_of(objects, name)
        assert container["securityContext"] == {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert not [mount for mount in container["volumeMounts"] if "mountPropagation" in mount]
    keeper = template_of(objects, KEEPER)["spec"]
    assert keeper["hostPID"] is True
    assert not keeper.keys() & {"hostNetwork", "hostIPC"}
    assert container_of(objects, KEEPER)["securityContext"]["privileged"] is True


def test_only_the_node_server_has_a_token(helm: Helm) -> None:
    """Keeper and provider cannot speak to the API server."""
    objects = helm.render()
    for name in (KEEPER, PROVIDER):
        spec = template_of(objects, name)["spec"]
        assert spec["automountServiceAccountToken"] is False
        account = objects["ServiceAccount", spec["serviceAccountName"]]
        assert account["automountServiceAccountToken"] is False
    assert template_of(objects, NODE)["spec"]["serviceAccountName"] == "secrets-store-csi-driver"


def test_nobody_may_read_secrets(helm: Helm) -> None:
    """No role of the chart has a right to Secrets, to tokens, or to everything."""
    roles = [one for (kind, _), one in helm.render().items() if kind == "ClusterRole"]
    assert roles
    rules = [rule for role in roles for rule in role["rules"]]
    resources = {name for rule in rules for name in rule["resources"]}
    assert resources == {"secretproviderclasses", "secretproviderclasspodstatuses", "pods"}
    assert "*" not in {word for rule in rules for words in rule.values() for word in words}


def test_roles_have_the_references_names(helm: Helm) -> None:
    """Users' own bindings and checks name them."""
    names = {name for kind, name in helm.render() if kind in {"ClusterRole", "ClusterRoleBinding"}}
    assert names == {
        "secretproviderclasses-role",
        "secretproviderclasses-rolebinding",
        "secretproviderclasses-admin-role",
        "secretproviderclasses-viewer-role",
        "secretproviderclasspodstatuses-viewer-role",
    }
    without = helm.render({"rbac": {"install": False}})
    assert not [kind for kind, _ in without if kind.startswith("ClusterRole")]


@pytest.mark.parametrize("daemonset", DAEMONSETS)
def test_probes_look_for_the_ready_file(helm: Helm, daemonset: str) -> None:
    """The file that the program is told to have is what probes look for, in a folder of the pod."""
    objects = helm.render()
    container = container_of(objects, daemonset)
    [file] = [
        one.removeprefix("--ready-file=")
        for one in container["args"]
        if one.startswith("--ready-file=")
    ]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["exec"] == {"command": ["test", "-e", file]}
    assert "livenessProbe" not in container
    [mount] = [one for one in container["volumeMounts"] if file.startswith(one["mountPath"] + "/")]
    [volume] = [
        one
        for one in template_of(objects, daemonset)["spec"]["volumes"]
        if one["name"] == mount["name"]
    ]
    assert volume == {"name": mount["name"], "emptyDir": {}}


@pytest.mark.parametrize("daemonset", DAEMONSETS)
def test_pods_are_replaced_by_surge(helm: Helm, daemonset: str) -> None:
    """The new pod is there before the old one goes."""
    spec = helm.render()["DaemonSet", daemonset]["spec"]
    assert spec["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert spec["minReadySeconds"] > 0
    assert not [
        one for one in container_of(helm.render(), daemonset).get("ports", ()) if "hostPort" in one
    ]
    assert spec["template"]["spec"]["priorityClassName"] == "system-node-critical"


def test_keeper_is_never_throttled(helm: Helm) -> None:
    """Memory requested is memory allowed, and the CPU has no limit."""
    resources = container_of(helm.render({"keeper": {"memory": "1Gi"}}), KEEPER)["resources"]
    assert resources == {
        "requests": {"cpu": "50m", "memory": "1Gi"},
        "limits": {"memory": "1Gi"},
    }


def test_node_pods_look_like_the_references(helm: Helm) -> None:
    """Label, container name and metrics port are what scripts and dashboards look for."""
    objects = helm.render()
    labels = template_of(objects, NODE)["metadata"]["labels"]
    assert labels == {"app": "secrets-store-csi-driver"}
    container = container_of(objects, NODE)
    assert container["name"] == "secrets-store"
    assert [port["containerPort"] for port in container["ports"]] == [8095]


@pytest.mark.parametrize(
    ("address", "ports"), [("127.0.0.1:9000", [9000]), ("[::1]:80", [80]), ("0", [])]
)
def test_metrics_are_where_they_should_be(helm: Helm, address: str, ports: list[int]) -> None:
    """The node server listens there, and the pod names the port."""
    container = container_of(helm.render({"linux": {"metricsAddr": address}}), NODE)
    assert f"--metrics-addr={address}" in container["args"]
    assert [port["containerPort"] for port in container.get("ports", [])] == ports


@pytest.mark.parametrize("rotation", [False, True])
def test_driver_is_always_republished(helm: Helm, *, rotation: bool) -> None:
    """Republishing brings fresh tokens, also while nothing rotates."""
    objects = helm.render({"enableSecretRotation": rotation})
    assert objects["CSIDriver", DRIVER]["spec"] == {
        "podInfoOnMount": True,
        "attachRequired": False,
        "volumeLifecycleModes": ["Ephemeral"],
        "requiresRepublish": True,
    }
    switch = f"--enable-secret-rotation={str(rotation).lower()}"
    assert switch in container_of(objects, NODE)["args"]


@pytest.mark.parametrize(("kubernetes", "in_secrets"), [("1.34.0", None), ("1.35.0", True)])
def test_tokens_come_the_safest_way(helm: Helm, kubernetes: str, in_secrets: object) -> None:
    """Tokens travel in the request's secrets where Kubernetes can do that."""
    wanted = [{"audience": "api://AzureADTokenExchange", "expirationSeconds": 3600}]
    objects = helm.render({"tokenRequests": wanted}, kubernetes=kubernetes)
    spec = objects["CSIDriver", DRIVER]["spec"]
    assert spec["tokenRequests"] == wanted
    assert spec.get("serviceAccountTokenInSecrets") is in_secrets

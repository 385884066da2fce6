"""What values do, and which are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from cluster.chart.rendering import CHART, CLOUD, KEEPER, NODE, PROVIDER, container_of, template_of
from provider.azure.clouds import parse_environment, usable

if TYPE_CHECKING:
    from cluster.chart.rendering import Helm


def nested(path: str, value: object) -> dict[str, object]:
    """Return values with one key set, `a.b.c`."""
    key, _, rest = path.partition(".")
    return {key: nested(rest, value) if rest else value}


def test_kubelets_root_reaches_every_path(helm: Helm) -> None:
    """Another root directory of kubelet changes all paths below it, and no other is left."""
    objects = helm.render({"linux": {"kubeletRootDir": "/data/kubelet/"}})
    assert "/var/lib/kubelet" not in yaml.safe_dump_all(objects.values())
    assert "--kubelet-root=/data/kubelet" in container_of(objects, KEEPER)["args"]
    node = container_of(objects, NODE)["args"]
    assert "--kubelet-root=/data/kubelet" in node
    plugin = "/data/kubelet/plugins/csi-secrets-store"
    assert f"--kubelet-registration-path={plugin}/csi.sock" in node
    volumes = template_of(objects, NODE)["spec"]["volumes"]
    paths = [one["hostPath"]["path"] for one in volumes if "hostPath" in one]
    assert plugin in paths
    assert "/data/kubelet/plugins_registry" in paths


def test_provider_directories_are_mounted_as_named(helm: Helm) -> None:
    """Every directory that the node server searches is mounted under its own name."""
    values = {"providersDir": "/var/run/p", "additionalProvidersDirs": ["/etc/a", "/etc/b"]}
    objects = helm.render({"linux": values})
    spec, container = template_of(objects, NODE)["spec"], container_of(objects, NODE)
    assert "--provider-volume=/var/run/p" in container["args"]
    assert "--additional-provider-volume-paths=/etc/a,/etc/b" in container["args"]
    hosts = {one["name"]: one["hostPath"]["path"] for one in spec["volumes"] if "hostPath" in one}
    mounted = {one["mountPath"]: hosts.get(one["name"]) for one in container["volumeMounts"]}
    for directory in ("/var/run/p", "/etc/a", "/etc/b"):
        assert mounted[directory] == directory
    provider = template_of(objects, PROVIDER)["spec"]["volumes"]
    assert [one["hostPath"]["path"] for one in provider if "hostPath" in one] == ["/var/run/p"]


def test_keeper_sees_the_accounts_of_the_node(helm: Helm) -> None:
    """It reads the node's file of accounts, not its image's; or none, where nodes have none."""
    objects = helm.render()
    container = container_of(objects, KEEPER)
    [mount] = [one for one in container["volumeMounts"] if one["name"] == "passwd"]
    [volume] = [
        one for one in template_of(objects, KEEPER)["spec"]["volumes"] if one["name"] == "passwd"
    ]
    assert volume["hostPath"] == {"path": "/etc/passwd", "type": "File"}
    assert mount["readOnly"] is True
    assert f"--passwd-file={mount['mountPath']}" in container["args"]
    without = helm.render({"keeper": {"passwdFile": ""}})
    assert "passwd" not in str(template_of(without, KEEPER))


def test_cloud_files_reach_the_provider_unlinked(helm: Helm) -> None:
    """Each file is one the provider can use, mounted by itself, below the allowed directory."""
    files = {"lab.json": CLOUD, "other.json": {**CLOUD, "name": "Other"}}
    objects = helm.render({"provider": {"cloudFiles": files}})
    stored = objects["ConfigMap", "akvfs-clouds"]["data"]
    assert {
        name: usable(parse_environment(text.encode())).name for name, text in stored.items()
    } == {
        "lab.json": "Lab",
        "other.json": "Other",
    }
    container = container_of(objects, PROVIDER)
    assert "--cloud-files-dir=/etc/akvfs/clouds" in container["args"]
    mounts = {
        mount["mountPath"]: mount["subPath"]
        for mount in container["volumeMounts"]
        if mount["name"] == "clouds"
    }
    assert mounts == {f"/etc/akvfs/clouds/{name}": name for name in files}


def test_changed_cloud_replaces_the_provider(helm: Helm) -> None:
    """A file that is mounted by itself stays old, so the pods must not."""
    changed = {**CLOUD, "keyVaultDNSSuffix": "vault.other.example"}
    templates = [
        template_of(helm.render({"provider": {"cloudFiles": {"lab.json": cloud}}}), PROVIDER)
        for cloud in (CLOUD, changed)
    ]
    assert templates[0]["metadata"] != templates[1]["metadata"]
    assert templates[0]["spec"] == templates[1]["spec"]


def test_provider_can_be_left_out(helm: Helm) -> None:
    """With providers of others, nothing of ours is installed beside keeper and node server."""
    values = {"provider": {"enabled": False, "cloudFiles": {"lab.json": CLOUD}}}
    objects = helm.render(values)
    assert not [name for _, name in objects if "provider-azure" in name or "clouds" in name]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("syncSecret.enabled", True, "set it to false"),
        ("providerHealthCheck", True, "set it to false"),
        ("windows.enabled", True, "Linux only"),
        ("linux.enabled", False, "remove it"),
        ("rbac.pspEnabled", True, "remove it"),
        ("secrets-store-csi-driver.enableSecretRotation", True, "at the top level"),
        ("enableSecretRotations", True, "'enableSecretRotations' not allowed"),
        ("linux.imag.tag", "1", "'imag' not allowed"),
        ("linux.metricsAddr", "8095", "/linux/metricsAddr"),
        ("classChangeSpread", "5", "/classChangeSpread"),
        ("rotationPollInterval", "2 minutes", "/rotationPollInterval"),
        ("keeper.image.tag", "", "/keeper/image"),
        ("linux.filesystem", "ext4", "/linux/filesystem"),
        ("keeper.memory", "lots", "/keeper/memory"),
        ("keeper.workerUidBase", 0, "/keeper/workerUidBase"),
        ("keeper.passwdFile", "passwd", "/keeper/passwdFile"),
        ("linux.kubeletRootDir", "kubelet", "/linux/kubeletRootDir"),
        ("linux.podLabels.app", "x", "/linux/podLabels"),
        ("provider.cloudName", "AzureStackCloud", "/provider/cloudName"),
        ("provider.cloudFiles", {"../a.json": CLOUD}, "'../a.json' not allowed"),
        ("provider.cloudFiles", {"a.json": {"name": "A"}}, "activeDirectoryEndpoint"),
    ],
)
def test_impossible_values_are_refused(helm: Helm, key: str, value: object, said: str) -> None:
    """What cannot be had is refused before anything is sent, by the name of the key."""
    error = helm.refusal(nested(key, value))
    assert said in error
    assert key.partition(".")[0] in error


def test_old_kubernetes_is_refused(helm: Helm) -> None:
    """The chart says from which version on it works."""
    assert ">=1.30.0-0" in helm.refusal({}, kubernetes="1.29.0")


def test_values_without_effect_are_named(helm: Helm) -> None:
    """Values of the reference that mean nothing here are taken, and the notes say so."""
    values = {
        "logVerbosity": 5,
        "windows": {"enabled": False},
        "linux": {"updateStrategy": {"type": "RollingUpdate"}, "crds": {"image": {"tag": "x"}}},
    }
    install = ("install", "akvfs", str(CHART), "--dry-run=client")
    notes = helm.run(*install, values=values)
    [warning] = [line for line in notes.splitlines() if line.startswith("WARNING")]
    assert warning.endswith(": logVerbosity, windows, linux.updateStrategy, linux.crds.image")
    assert "WARNING" not in helm.run(*install)

"""The examples, read by the code that will read them on a node."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from csi.classes import ClassDirectory
from csi.options import parse_options, split_parameters
from fusefs.config import Config
from provider.azure.clouds import CloudDirectory
from provider.objects import check_object, parse_objects
from provider.parameters import check_vault_name, parse_parameters

if TYPE_CHECKING:
    from provider.parameters import Parameters

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "deploy" / "examples"
POD_CONTEXT = {"csi.storage.k8s.io/pod.name": "p", "csi.storage.k8s.io/pod.namespace": "default"}


def documents(name: str) -> dict[str, Any]:
    """Return the objects of an example by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((EXAMPLES / name).read_text())}


async def class_parameters(name: str, directory: Path) -> Parameters:
    """Return what the provider reads of an example's class, by way of the node server."""
    class_ = documents(name)["SecretProviderClass"]
    (directory / "class.yaml").write_text(yaml.safe_dump(class_))
    found = await ClassDirectory(directory).get("default", class_["metadata"]["name"])
    assert found.provider == "azure"
    theirs, ours = split_parameters(found.parameters)
    parse_options(found.namespace, found.name, ours)
    return parse_parameters({**theirs, **POD_CONTEXT})


@pytest.mark.parametrize("name", ["pod.yaml", "custom-cloud-class.yaml"])
async def test_example_classes_are_valid(name: str, tmp_path: Path) -> None:
    """Node server and provider take the class with everything in it, and warn of nothing."""
    read = await class_parameters(name, tmp_path)
    assert read.warnings == ()
    check_vault_name(read.vault_name)
    objects = parse_objects(read.objects)
    assert objects
    for wanted in objects:
        check_object(wanted)


async def test_example_pod_uses_its_class(tmp_path: Path) -> None:
    """The pod's volume names driver, class and Secret of the example, and files that will exist."""
    example = documents("pod.yaml")
    spec = example["Pod"]["spec"]
    [volume] = spec["volumes"]
    assert volume["csi"] == {
        "driver": Config(socket="", kubelet_root="").driver,
        "readOnly": True,
        "volumeAttributes": {
            "secretProviderClass": example["SecretProviderClass"]["metadata"]["name"]
        },
        "nodePublishSecretRef": {"name": example["Secret"]["metadata"]["name"]},
    }
    read = await class_parameters("pod.yaml", tmp_path)
    files = {wanted.file_name for wanted in parse_objects(read.objects)}
    mounts = spec["containers"][0]["volumeMounts"]
    assert {mount["subPath"] for mount in mounts if "subPath" in mount} <= files


async def test_example_cloud_is_found(tmp_path: Path) -> None:
    """The class's path is the one where the chart puts the file, and the provider can use it."""
    values = yaml.safe_load((EXAMPLES / "custom-cloud-values.yaml").read_text())
    [(name, cloud)] = values["provider"]["cloudFiles"].items()
    read = await class_parameters("custom-cloud-class.yaml", tmp_path)
    helpers = (ROOT / "deploy" / "chart" / "templates" / "_helpers.tpl").read_text()
    directory = str(PurePosixPath(read.cloud_file).parent)
    assert f'{{{{- define "akvfs.cloudDirectory" -}}}}{directory}{{{{- end }}}}' in helpers
    assert PurePosixPath(read.cloud_file).name == name
    (tmp_path / name).write_text(json.dumps(cloud))
    clouds = CloudDirectory(allowed=[str(tmp_path)])
    assert (
        clouds.resolve(read.cloud_name, str(tmp_path / name)).vault_suffix
        == (cloud["keyVaultDNSSuffix"])
    )

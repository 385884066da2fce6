"""The chart as helm renders it; what tests of the chart look at it with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).parents[3]
CHART: Final = ROOT / "deploy" / "chart"
DAEMONSETS: Final = ("akvfs-keeper", "secrets-store-csi-driver", "csi-secrets-store-provider-azure")
KEEPER, NODE, PROVIDER = DAEMONSETS
CLOUD: Final = {
    "name": "Lab",
    "activeDirectoryEndpoint": "https://login.lab.example/",
    "keyVaultDNSSuffix": "vault.lab.example:8443",
}

Document = dict[str, Any]


class Helm:
    """helm, as a user calls it, in the release's usual namespace."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def run(self, *arguments: str, values: Mapping[str, object] | None = None) -> str:
        """Run helm with values on its standard input and return its output."""
        return subprocess.run(
            [self._program, *arguments, "--values=-", "--namespace=kube-system"],
            input=json.dumps(values or {}),
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def render(
        self,
        values: Mapping[str, object] | None = None,
        *,
        kubernetes: str = "1.37.0",
        chart: Path = CHART,
    ) -> dict[tuple[str, str], Document]:
        """Return the objects of a release by kind and name."""
        text = self.run(
            "template", "akvfs", str(chart), f"--kube-version={kubernetes}", values=values
        )
        documents = [one for one in yaml.safe_load_all(text) if one is not None]
        found = {(one["kind"], one["metadata"]["name"]): one for one in documents}
        assert len(found) == len(documents)
        return found

    def refusal(self, values: Mapping[str, object], *, kubernetes: str = "1.37.0") -> str:
        """Return why helm refuses these values."""
        with pytest.raises(subprocess.CalledProcessError) as caught:
            self.render(values, kubernetes=kubernetes)
        return str(caught.value.stderr)


def template_of(objects: Mapping[tuple[str, str], Document], daemonset: str) -> Document:
    """Return a DaemonSet's pod template."""
    template: Document = objects["DaemonSet", daemonset]["spec"]["template"]
    return template


def container_of(objects: Mapping[tuple[str, str], Document], daemonset: str) -> Document:
    """Return the one container of a DaemonSet's pods."""
    [container] = template_of(objects, daemonset)["spec"]["containers"]
    found: Document = container
    return found

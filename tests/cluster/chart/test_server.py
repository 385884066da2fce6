"""The chart as an API server reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cluster.chart.rendering import CLOUD

if TYPE_CHECKING:
    from cluster.chart.rendering import Helm
    from cluster.cluster import Cluster

EVERYTHING: dict[str, object] = {
    "commonLabels": {"team": "a"},
    "imagePullSecrets": [{"name": "a"}],
    "tokenRequests": [{"audience": "a", "expirationSeconds": 3600}],
    "linux": {
        "daemonsetAnnotations": {"note": "a"},
        "env": [{"name": "A", "value": "b"}],
        "nodeSelector": {"disk": "fast"},
        "podAnnotations": {"note": "a"},
        "podLabels": {"team": "a"},
        "volumes": [{"name": "a", "emptyDir": {}}],
        "volumeMounts": [{"name": "a", "mountPath": "/a"}],
    },
    "provider": {
        "caBundle": {"configMap": "a"},
        "cloudFiles": {"lab.json": CLOUD},
        "env": [{"name": "A", "value": "b"}],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a.example"]}],
        "podAnnotations": {"note": "a"},
        "podLabels": {"team": "a"},
    },
}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_server_finds_nothing_wrong(
    cluster: Cluster, helm: Helm, values: dict[str, object]
) -> None:
    """A real API server takes every object, and knows every field of it."""
    objects = helm.render(values)
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects.values())}
    # The node may have the driver already, with other values.
    apply = ("apply", "--server-side", "--force-conflicts", "--filename=-")
    strictly = (*apply, "--dry-run=server", "--validate=strict")
    taken = cluster.kubectl(*strictly, text=json.dumps(listed))
    assert len(taken.splitlines()) == len(objects)
    wrong = objects["DaemonSet", "akvfs-keeper"]
    wrong["spec"]["template"]["spec"]["hostPIDs"] = True
    with pytest.raises(AssertionError, match="hostPIDs"):
        cluster.kubectl(*strictly, text=json.dumps(wrong))

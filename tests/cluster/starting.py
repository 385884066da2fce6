"""Pods whose container checks its volume before anything else, and what came of it.

No container may ever start unless every expected file is there with its exact bytes; so what such a
container says, and that it said it once, is what scenarios ask about.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from cluster.pods import container, pod, python
from cluster.volumes import mounted, volume
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.api import Thing
    from cluster.cluster import Cluster

EXACT: Final = "exact\n"
START_TIMEOUT_S: Final = 90.0
_FOLDER: Final = "/secrets"


def verifying(
    name: str, class_name: str, expected: Mapping[str, bytes], **metadata: object
) -> Thing:
    """Return a pod with one volume whose container checks that this is in it, and nothing else."""
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in expected.items()}
    main = container(*python("verify", _FOLDER, json.dumps(sums)), volumeMounts=[mounted(_FOLDER)])
    made = pod(name, main, volumes=[volume(class_name)], restartPolicy="Never")
    made["metadata"].update(metadata)
    return made


def wait_until_exact(cluster: Cluster, name: str, *, namespace: str = "default") -> None:
    """Return when the container of a pod has started, once, and has found all as expected.

    Raises:
        AssertionError: It found something else, or was started more than once.
        NotInTime: It has not started.
    """
    cluster.wait_until(
        "pods",
        name,
        lambda found: started(found) is not None,
        "the container has started",
        namespace=namespace,
        timeout_s=START_TIMEOUT_S,
    )
    eventually(
        lambda: bool(cluster.log(name, "main", namespace=namespace)),
        f"the container of {name} has looked",
        timeout_s=START_TIMEOUT_S,
        pause_s=0.2,
    )
    assert cluster.log(name, "main", namespace=namespace) == EXACT
    found = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
    assert found["status"]["containerStatuses"][0]["restartCount"] == 0


def started(found: Thing | None) -> str | None:
    """Return the id of a pod's only container, or None while none has ever started."""
    statuses = (found or {}).get("status", {}).get("containerStatuses", [])
    return next((each["containerID"] for each in statuses if "containerID" in each), None)


def assert_never_started(cluster: Cluster, name: str, *, namespace: str = "default") -> None:
    """Check that a pod is there and no container of it has started yet."""
    found = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
    assert started(found) is None, found["status"]

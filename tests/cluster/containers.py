"""The processes of a container, as this machine sees them: to stop and kill what is ours."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.cluster import is_ready

if TYPE_CHECKING:
    from cluster.api import Thing
    from cluster.cluster import Cluster


def container_id(pod: Thing, container: str | None = None) -> str:
    """Return the id that the runtime gave a pod's container, which may be the only one."""
    return str(_status(pod, container)["containerID"]).removeprefix("containerd://")


def image_id(pod: Thing, container: str | None = None) -> str:
    """Return the digest of the image that a pod's container runs."""
    return str(_status(pod, container)["imageID"])


def first_process(container: str) -> int:
    """Return the process that a container was started with.

    Args:
        container: Its id.

    Raises:
        ProcessLookupError: The container does not run.
    """
    inside = _parents_in(container)
    first = [pid for pid, parent in inside.items() if parent not in inside]
    if not first:
        raise ProcessLookupError(container)
    return min(first)


def restart(cluster: Cluster, pod: Thing, container: str | None = None) -> None:
    """Kill a container's first process, and return when the pod is ready with the next one.

    Raises:
        NotInTime: It is not.
    """
    before = container_id(pod, container)

    def is_another(found: Thing | None) -> bool:
        return found is not None and is_ready(found) and container_id(found, container) != before

    os.kill(first_process(before), signal.SIGKILL)
    cluster.wait_until(
        "pods",
        pod["metadata"]["name"],
        is_another,
        "the container is another",
        namespace=pod["metadata"]["namespace"],
    )


def children(pid: int) -> list[int]:
    """Return the children of a process, oldest first."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(each) for each in listed.split()]


def _status(pod: Thing, container: str | None) -> Thing:
    statuses: list[Thing] = pod["status"]["containerStatuses"]
    [found] = [each for each in statuses if container in (None, each["name"])]
    return found


def _parents_in(container: str) -> dict[int, int]:
    """Return the processes of a container, each with its parent."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if container in (folder / "cgroup").read_text(encoding="utf-8"):
                stat = (folder / "stat").read_text(encoding="utf-8")
                found[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        except OSError:
            continue  # ended meanwhile
    return found

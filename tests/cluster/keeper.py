"""The keeper on the node: its processes, and whether what it has mounted is served."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster import driver as drivers
from cluster.containers import children, container_id, first_process
from cluster.volumes import VOLUME

if TYPE_CHECKING:
    from cluster.api import Thing
    from cluster.driver import Driver
    from cluster.node import Node

LOOK_TIMEOUT_S: Final = 2.0


def supervisor(driver: Driver) -> int:
    """Return the first process of the keeper's container, which starts the keeper."""
    return first_process(container_id(driver.pod(drivers.KEEPER)))


def process(driver: Driver) -> int:
    """Return the keeper itself."""
    [found] = children(supervisor(driver))
    return found


def workers(driver: Driver) -> list[int]:
    """Return the workers: the keeper's only children with a uid of their own."""
    return [pid for pid in children(process(driver)) if Path(f"/proc/{pid}").stat().st_uid]


def serves(node: Node, pod: Thing, file: str) -> bool:
    """Return whether a file of a pod's volume can be read on the host."""
    uid = pod["metadata"]["uid"]
    target = f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~csi/{VOLUME}/mount"
    try:
        node.run("cat", f"{target}/{file}", timeout_s=LOOK_TIMEOUT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False
    return True

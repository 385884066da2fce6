"""The driver is removed under running pods, and comes back."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from cluster import containers, mountcheck, volumes
from cluster.driver import CONTAINERS, DAEMON_SETS, NAMESPACE, NODE_SERVER, RELEASE
from cluster.reading import reading
from harness.waiting import eventually

if TYPE_CHECKING:
    from cluster.driver import Driver
    from cluster.table import Row

CLASS: Final = "uninstalled"
GONE: Final = "uninstalled-gone"
UNINSTALL_TIMEOUT_S: Final = 120.0  # the keeper waits half a minute for a successor
REPAIR_TIMEOUT_S: Final = 60.0
ID: Final = re.compile("[0-9a-f]{64}")


def test_driver_is_uninstalled(driver: Driver, row: Row) -> None:
    """Pods read on, and without a process; with the driver back the volume is repaired.

    A pod that is deleted meanwhile goes then. Containers that see the old mount are named, and
    nobody else; one that starts anew gets what is new.
    """
    cluster = driver.cluster
    driver.vault.set(**{CLASS: "content"})
    cluster.apply(volumes.vault_class(CLASS, CLASS))
    with (
        reading(cluster, CLASS, CLASS, CLASS) as readers,
        reading(cluster, GONE, CLASS, CLASS) as gone,
    ):
        running = cluster.wait_for_ready(CLASS)
        wanted = {containers.container_id(running, each.program) for each in readers.readers}
        try:
            with readers.watched(row):
                began = time.monotonic()
                cluster.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}")
                eventually(
                    lambda: not any(map(driver.pods, DAEMON_SETS)),
                    "the driver's pods are gone",
                    timeout_s=UNINSTALL_TIMEOUT_S,
                    pause_s=0.2,
                )
                row.remark(f"uninstalled within {time.monotonic() - began:.1f} s")
                assert not driver.workers()
            gone.wait_until_all_read("content")
            cluster.kubectl("delete", "pod", GONE, "--wait=false")
        finally:
            driver.install()
        with readers.watched(row):
            driver.wait_until_ready()
            cluster.wait_until("pods", GONE, lambda found: found is None, "the pod is gone")
            eventually(
                lambda: said_to_restart(driver) == wanted,
                "the containers that see the old mount are named",
                timeout_s=REPAIR_TIMEOUT_S,
                pause_s=0.2,
            )
        driver.vault.set(**{CLASS: "changed"})
        for reader in readers.readers:
            readers.restart(reader)
        readers.wait_until_all_read("changed")
        assert mountcheck.check(cluster.node) == 1
    assert mountcheck.check(cluster.node) == 0


def said_to_restart(driver: Driver) -> set[str]:
    """Return the ids of the containers that the node server says must be restarted."""
    name = driver.pod(NODE_SERVER)["metadata"]["name"]
    log = driver.cluster.log(name, CONTAINERS[NODE_SERVER], namespace=NAMESPACE)
    told = [line for line in log.splitlines() if "restart them" in line]
    return {each for line in told for each in ID.findall(line.partition("containers=")[2])}

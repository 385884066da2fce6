"""The driver is removed under a running pod, and comes back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cluster import mountcheck, volumes
from cluster.driver import DAEMON_SETS, NAMESPACE, RELEASE
from cluster.reading import reading
from harness.waiting import eventually

if TYPE_CHECKING:
    from cluster.driver import Driver
    from cluster.table import Row

CLASS: Final = "uninstalled"
UNINSTALL_TIMEOUT_S: Final = 90.0


def test_driver_is_uninstalled(driver: Driver, row: Row) -> None:
    """A pod that is deleted meanwhile goes as soon as the driver is back, without a trace.

    Until mounts outlive the keeper, it loses its own.
    """
    cluster = driver.cluster
    driver.vault.set(**{CLASS: "content"})
    cluster.apply(volumes.vault_class(CLASS, CLASS))
    with reading(cluster, CLASS, CLASS, CLASS) as readers:
        try:
            with readers.disconnected(row):
                began = time.monotonic()
                cluster.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}")
                eventually(
                    lambda: not any(map(driver.pods, DAEMON_SETS)),
                    "the driver's pods are gone",
                    timeout_s=UNINSTALL_TIMEOUT_S,
                    pause_s=0.2,
                )
                row.remark(f"uninstalled within {time.monotonic() - began:.1f} s")
            cluster.kubectl("delete", "pod", CLASS, "--wait=false")
        finally:
            driver.install()
        driver.wait_until_ready()
        cluster.wait_until("pods", CLASS, lambda found: found is None, "the pod is gone")
    assert mountcheck.check(cluster.node) == 0

"""Pods that come before the driver."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cluster import volumes
from cluster.addresses import NODE
from cluster.driver import NAMESPACE, RELEASE, has_driver
from cluster.starting import assert_never_started, verifying, wait_until_exact

if TYPE_CHECKING:
    from cluster.driver import Driver
    from cluster.table import Row


def test_pod_waits_for_the_driver(driver: Driver, row: Row) -> None:
    """Pods that are scheduled before the driver is registered start when it is, and not before."""
    driver.vault.set(early="first")
    names = ["early-1", "early-2"]
    driver.cluster.apply(volumes.vault_class("early", "early"))
    driver.cluster.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait")
    driver.cluster.wait_until(
        "storage.k8s.io/v1/csinodes",
        NODE,
        lambda found: not has_driver(found),
        "kubelet has forgotten the driver",
        namespace=None,
    )
    driver.cluster.apply(*(verifying(name, "early", {"early": b"first"}) for name in names))
    for name in names:
        driver.cluster.wait_for_event(name, f"driver name {volumes.DRIVER} not found")
        assert_never_started(driver.cluster, name)
    driver.install()
    began = time.monotonic()
    driver.wait_until_ready()
    row.remark(f"ready {time.monotonic() - began:.1f} s after helm install")
    for name in names:
        wait_until_exact(driver.cluster, name)
    row.remark(f"pods started after {time.monotonic() - began:.1f} s")

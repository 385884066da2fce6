"""A pod with a secret: what it sees while it runs, and what is left of it afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster import mountcheck, volumes
from cluster.pods import container, pod
from cluster.reading import reading

if TYPE_CHECKING:
    from cluster.driver import Driver
    from cluster.table import Row


def test_pod_reads_its_secret_and_goes(driver: Driver, row: Row) -> None:
    """A pod starts, reads its secret and is deleted; mount, directory and worker are gone."""
    driver.vault.set(plain_password="first")
    driver.cluster.apply(volumes.vault_class("plain", "plain-password"))
    main = container(volumeMounts=[volumes.mounted()])
    driver.cluster.apply(pod("plain", main, volumes=[volumes.volume("plain")]))
    uid = driver.cluster.wait_for_ready("plain")["metadata"]["uid"]
    assert driver.cluster.execute("plain", "cat", "/secrets/plain-password") == "first"
    assert mountcheck.check(driver.cluster.node) == 1
    driver.cluster.delete("pod", "plain")
    row.remark(uid)


def test_readers_do_not_notice_a_rotation(driver: Driver, row: Row) -> None:
    """While a secret changes, no read fails on any path."""
    driver.vault.set(turning="first")
    driver.cluster.apply(volumes.vault_class("turning", "turning"))
    with reading(driver.cluster, "turning", "turning", "turning") as readers:
        mountcheck.check(driver.cluster.node)
        with readers.watched(row):
            driver.vault.set(turning="second")

"""The keeper ends in every way: pods read on, and get what is new afterwards."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cluster import containers, keeper, mountcheck, volumes
from cluster.driver import KEEPER, NAMESPACE, NODE_SERVER
from cluster.pods import container, pod
from cluster.reading import many_reading, reading
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.driver import Driver
    from cluster.reading import Reading
    from cluster.table import Row

CONTAINER_KILLS: Final = 5
PODS: Final = 10


@contextmanager
def lasting(driver: Driver, name: str, *, pods: int = 1) -> Iterator[Reading]:
    """Run pods that read while the keeper ends in the block, and check what comes then.

    New content reaches them, containers of theirs that start then read, a new pod starts, and pods
    go without a trace.
    """
    cluster = driver.cluster
    driver.vault.set(**{name: "content"})
    secret = name.replace("_", "-")
    cluster.apply(volumes.vault_class(secret, secret))
    made = (
        reading(cluster, secret, secret, secret)
        if pods == 1
        else many_reading(cluster, secret, secret, pods=pods)
    )
    with made as readers:
        yield readers
        driver.vault.set(**{name: "changed"})
        readers.wait_until_all_read("changed")
        readers.restart(readers.readers[0])
        starts_and_goes(driver, f"{secret}-later", secret)
    assert mountcheck.check(cluster.node) == 0
    eventually(lambda: not driver.workers(), "no worker is left")


def starts_and_goes(driver: Driver, name: str, class_name: str) -> None:
    """Start a pod with a volume, read its file, and delete it."""
    main = container(volumeMounts=[volumes.mounted()])
    driver.cluster.apply(pod(name, main, volumes=[volumes.volume(class_name)]))
    driver.cluster.wait_for_ready(name)
    assert driver.cluster.execute(name, "cat", f"/secrets/{class_name}") == "changed"
    driver.cluster.delete("pod", name)


def test_keeper_process_is_killed(driver: Driver, row: Row) -> None:
    """The supervisor starts another keeper in the same container."""
    container_before = containers.container_id(driver.pod(KEEPER))
    with lasting(driver, "keeper_killed") as readers, readers.watched(row):
        os.kill(keeper.process(driver), signal.SIGKILL)
    assert containers.container_id(driver.pod(KEEPER)) == container_before


def test_keeper_container_is_killed(driver: Driver, row: Row) -> None:
    """With its first process the container ends, and kubelet starts another one; five times."""
    with lasting(driver, "container_killed") as readers:
        for _ in range(CONTAINER_KILLS):
            with readers.watched(row):
                containers.restart(driver.cluster, driver.pod(KEEPER))


def test_keeper_pod_is_deleted(driver: Driver, row: Row) -> None:
    """Another pod takes over from the one that ends."""
    before = driver.pod(KEEPER)
    with lasting(driver, "keeper_deleted") as readers, readers.watched(row):
        began = time.monotonic()
        driver.cluster.delete("pod", before["metadata"]["name"], namespace=NAMESPACE)
        row.remark(f"the pod was gone after {time.monotonic() - began:.1f} s")
        driver.successor(KEEPER, before)


def test_keeper_is_upgraded(driver: Driver, row: Row, next_image: str) -> None:
    """Ten pods read on while a keeper of another image takes over; the node server stays."""
    before, node_server = driver.pod(KEEPER), driver.pod(NODE_SERVER)
    with lasting(driver, "keeper_upgraded", pods=PODS) as readers, readers.watched(row):
        driver.upgrade(KEEPER, next_image=next_image)
        after = driver.successor(KEEPER, before)
    assert containers.image_id(after) != containers.image_id(before)
    assert driver.pod(NODE_SERVER)["metadata"]["uid"] == node_server["metadata"]["uid"]


def test_keeper_and_node_server_are_upgraded(driver: Driver, row: Row, next_image: str) -> None:
    """Both are replaced at once under ten pods that read."""
    before = {name: driver.pod(name) for name in (KEEPER, NODE_SERVER)}
    with lasting(driver, "both_upgraded", pods=PODS) as readers, readers.watched(row):
        driver.upgrade(*before, next_image=next_image)
        after = {name: driver.successor(name, each) for name, each in before.items()}
    for name, each in before.items():
        assert containers.image_id(after[name]) != containers.image_id(each)

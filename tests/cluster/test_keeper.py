"""The keeper ends in every way: what running pods lose, and that everything else recovers.

Until the mounts outlive the keeper, the readers are `disconnected` here; then they are `watched`.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cluster import containers, keeper, mountcheck, volumes
from cluster.driver import KEEPER, NAMESPACE, NODE_SERVER
from cluster.pods import container, pod
from cluster.reading import reading
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.driver import Driver
    from cluster.table import Row

SERVED_TIMEOUT_S: Final = 60.0


@contextmanager
def recovery(driver: Driver, row: Row, name: str) -> Iterator[None]:
    """Let the keeper end in the block while a pod reads, and check that everything recovers.

    The volume is served again without anybody's help, to a new container of the pod too, a new pod
    starts, and pods go without a trace.
    """
    cluster = driver.cluster
    driver.vault.set(**{name: "content"})
    secret = name.replace("_", "-")
    cluster.apply(volumes.vault_class(secret, secret))
    with reading(cluster, secret, secret, secret) as readers:
        running = cluster.wait_for_ready(secret)
        with readers.disconnected(row):
            began = time.monotonic()
            yield
            eventually(
                lambda: keeper.serves(cluster.node, running, secret),
                "the volume is served again",
                timeout_s=SERVED_TIMEOUT_S,
                pause_s=0.1,
            )
            row.remark(f"served again {time.monotonic() - began:.1f} s after it began")
        readers.restart("c")
        starts_and_goes(driver, f"{secret}-later", secret)
    assert mountcheck.check(cluster.node) == 0
    eventually(lambda: not keeper.workers(driver), "no worker is left")


def starts_and_goes(driver: Driver, name: str, class_name: str) -> None:
    """Start a pod with a volume, read its file, and delete it."""
    main = container(volumeMounts=[volumes.mounted()])
    driver.cluster.apply(pod(name, main, volumes=[volumes.volume(class_name)]))
    driver.cluster.wait_for_ready(name)
    assert driver.cluster.execute(name, "cat", f"/secrets/{class_name}") == "content"
    driver.cluster.delete("pod", name)


def test_keeper_process_is_killed(driver: Driver, row: Row) -> None:
    """The supervisor starts another keeper in the same container."""
    container_before = containers.container_id(driver.pod(KEEPER))
    with recovery(driver, row, "keeper_killed"):
        os.kill(keeper.process(driver), signal.SIGKILL)
    assert containers.container_id(driver.pod(KEEPER)) == container_before


def test_keeper_container_is_killed(driver: Driver, row: Row) -> None:
    """With its first process the container ends, and kubelet starts another one."""
    container_before = containers.container_id(driver.pod(KEEPER))
    with recovery(driver, row, "container_killed"):
        os.kill(keeper.supervisor(driver), signal.SIGKILL)
    assert containers.container_id(driver.pod(KEEPER)) != container_before


def test_keeper_pod_is_deleted(driver: Driver, row: Row) -> None:
    """Another pod takes its place."""
    before = driver.pod(KEEPER)
    with recovery(driver, row, "keeper_deleted"):
        driver.cluster.delete("pod", before["metadata"]["name"], namespace=NAMESPACE)
        driver.successor(KEEPER, before)


def test_keeper_is_upgraded(driver: Driver, row: Row, next_image: str) -> None:
    """A keeper of another image takes its place; the node server stays."""
    before, node_server = driver.pod(KEEPER), driver.pod(NODE_SERVER)
    with recovery(driver, row, "keeper_upgraded"):
        driver.upgrade("keeper.image", next_image)
        after = driver.successor(KEEPER, before)
    assert containers.image_id(after) != containers.image_id(before)
    assert driver.pod(NODE_SERVER)["metadata"]["uid"] == node_server["metadata"]["uid"]

"""Volumes of pods that were started by the reference driver, once ours has taken its place."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from cluster import volumes
from cluster.driver import NAMESPACE, NODE_SERVER
from cluster.reading import reading
from cluster.reference import reference
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.driver import Driver
    from cluster.table import Row

CLASS: Final = "migrated"
GONE_TIMEOUT_S: Final = 60.0
UPDATE_TIMEOUT_S: Final = 60.0  # kubelet publishes again every ten seconds
FILES: Final = {CLASS: b"of the reference", "gone": b"of the reference"}


def mounts(driver: Driver, uid: str) -> list[str]:
    """Return what is mounted on the host for the volume of a pod: its place, type and source."""
    lines = driver.cluster.node.mountinfo().splitlines()
    volume = f"/{uid}/volumes/kubernetes.io~csi/"
    return [line.partition(" / ")[2] for line in lines if volume in line.split(" ")[4]]


@contextmanager
def without_node_server(driver: Driver) -> Iterator[None]:
    """Remove our node server, and install it again after the block."""
    driver.cluster.delete("daemonset", NODE_SERVER, namespace=NAMESPACE)
    try:
        eventually(lambda: not driver.pods(NODE_SERVER), "it is gone", timeout_s=GONE_TIMEOUT_S)
        yield
    finally:
        driver.install()


def test_volume_of_the_reference_is_taken_over(driver: Driver, row: Row) -> None:
    """A running pod's tmpfs is updated in place, and unmounted with the pod; no read fails."""
    cluster = driver.cluster
    driver.vault.set(**{CLASS: "first"})
    cluster.apply(volumes.vault_class(CLASS, CLASS))

    def shows(content: str) -> bool:
        paths = (f"/secrets/{CLASS}", f"/secrets/..data/{CLASS}")
        return cluster.execute(CLASS, "cat", *paths, container="c") == 2 * content

    with ExitStack() as pods:
        with without_node_server(driver), reference(cluster.node, FILES):
            readers = pods.enter_context(reading(cluster, CLASS, CLASS, CLASS))
            uid = cluster.wait_for_ready(CLASS)["metadata"]["uid"]
            before = mounts(driver, uid)
            assert shows("of the reference")
        with readers.watched(row):
            driver.wait_until_ready()
            for content in ("first", "second"):
                driver.vault.set(**{CLASS: content})
                eventually(
                    partial(shows, content),
                    f"the pod sees the {content} content of ours",
                    timeout_s=UPDATE_TIMEOUT_S,
                    pause_s=0.2,
                )
        assert cluster.execute(CLASS, "ls", "/secrets", container="c") == f"{CLASS}\n"
        assert len(before) == 1
        assert mounts(driver, uid) == before
    assert mounts(driver, uid) == []
    eventually(
        lambda: not cluster.node.path(f"/var/lib/kubelet/pods/{uid}").exists(),
        "the pod's folder is gone",
    )

"""The node server ends in every way: no reader notices, and kubelet finds the next one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cluster import containers, volumes
from cluster.asking import asking
from cluster.cluster import path_of
from cluster.driver import KEEPER, NAMESPACE, NODE_SERVER, is_rolled_out
from cluster.pods import container, pod
from cluster.reading import reading
from harness.waiting import eventually
from provider.emulator import FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.driver import Driver
    from cluster.table import Row
    from provider.emulator import EmulatorClient

CLASS: Final = "node-server"
LONGEST_FAILURE_S: Final = 1.0
KILLS: Final = 3
SLOW_S: Final = 1.0
EVERY_S: Final = 0.5
FAILED: Final = "FailedMount"


def prepare(driver: Driver) -> None:
    """Make the class of these tests."""
    driver.vault.set(node_server="content")
    driver.cluster.apply(volumes.vault_class(CLASS, CLASS))


def one_more_pod(driver: Driver, name: str) -> str:
    """Start a pod with a volume of the class and return its name; it may not be ready."""
    main = container(volumeMounts=[volumes.mounted()])
    driver.cluster.apply(pod(name, main, volumes=[volumes.volume(CLASS)]))
    return name


@contextmanager
def slow(vault: EmulatorClient) -> Iterator[None]:
    """Let every read of a secret in the block take its time."""
    vault.fault(FaultKind.SLOW, count=None, seconds=SLOW_S)
    try:
        yield
    finally:
        vault.clear_faults()


def test_node_server_pod_is_deleted(driver: Driver, row: Row) -> None:
    """Another pod takes its place and serves; no read fails meanwhile."""
    prepare(driver)
    before = driver.pod(NODE_SERVER)
    with reading(driver.cluster, CLASS, CLASS, CLASS) as readers:
        with asking(driver.cluster.node) as answers, readers.watched(row):
            driver.cluster.delete("pod", before["metadata"]["name"], namespace=NAMESPACE)
            driver.successor(NODE_SERVER, before)
        driver.cluster.wait_for_ready(one_more_pod(driver, "after-deletion"))
    row.remark(f"longest time without the CSI socket {answers.longest_failure_s:.1f} s")


def test_node_server_is_killed(driver: Driver, row: Row) -> None:
    """Killed several times, it is started again by kubelet; no read fails meanwhile."""
    prepare(driver)
    with reading(driver.cluster, CLASS, CLASS, CLASS) as readers:
        for number in range(KILLS):
            with asking(driver.cluster.node) as answers, readers.watched(row):
                containers.restart(driver.cluster, driver.pod(NODE_SERVER))
            row.remark(f"socket gone for {answers.longest_failure_s:.1f} s")
            driver.cluster.wait_for_ready(one_more_pod(driver, f"after-kill-{number}"))


def test_node_server_is_upgraded(driver: Driver, row: Row, next_image: str) -> None:
    """Kubelet always has an answer and pods start as ever; no read fails; the keeper stays.

    The vault is slow, so that some pod is always being published, also while one node server takes
    over from the other.
    """
    prepare(driver)
    cluster = driver.cluster
    before, keeper = driver.pod(NODE_SERVER), driver.pod(KEEPER)
    with reading(cluster, CLASS, CLASS, CLASS) as readers:
        meanwhile: list[str] = []

        def is_over() -> bool:
            """Start a pod with each look, so that each moment of the upgrade has one."""
            meanwhile.append(one_more_pod(driver, f"meanwhile-{len(meanwhile)}"))
            path = f"{path_of('apps/v1/daemonsets', NAMESPACE)}/{NODE_SERVER}"
            return is_rolled_out(cluster.api.get(path)) and len(driver.pods(NODE_SERVER)) == 1

        with (
            slow(driver.vault.client),
            asking(cluster.node) as answers,
            readers.watched(row),
        ):
            driver.upgrade(NODE_SERVER, next_image=next_image)
            eventually(is_over, "the upgrade is over", timeout_s=90.0, pause_s=EVERY_S)
        for name in meanwhile:
            cluster.wait_for_ready(name)
        failures = {each for name in meanwhile for each in cluster.events(name) if FAILED in each}
    after = driver.successor(NODE_SERVER, before)
    row.remark(
        f"GetPluginInfo: {answers.asked} asked, {answers.failed} failed, "
        f"for at most {answers.longest_failure_s:.1f} s"
    )
    row.remark(f"{len(meanwhile)} pods started meanwhile")
    assert answers.longest_failure_s <= LONGEST_FAILURE_S, answers.last_error
    assert not failures
    assert containers.image_id(after) != containers.image_id(before)
    assert driver.pod(KEEPER)["metadata"]["uid"] == keeper["metadata"]["uid"]

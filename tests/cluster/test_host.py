"""What happens to the whole node: kubelet restarts, the power is cut, a worker stops."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from cluster import keeper, mountcheck, volumes
from cluster.cluster import is_ready
from cluster.pods import container, pod
from cluster.reading import reading
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cluster.api import Thing
    from cluster.driver import Driver
    from cluster.node import Node
    from cluster.table import Row

CLASS: Final = "whole-node"
# Agents that look at every mount of a node.
AGENTS: Final = {"df": ("df",), "updatedb": ("updatedb",)}
REPLACED_S: Final = 10.0  # 3 s, and what a busy machine adds
REBOOT_TIMEOUT_S: Final = 120.0


def prepare(driver: Driver) -> None:
    """Make the class of these tests."""
    driver.vault.set(whole_node="content")
    driver.cluster.apply(volumes.vault_class(CLASS, CLASS))


def starts(driver: Driver, name: str) -> None:
    """Start a pod with a volume of the class, and read its file."""
    main = container(volumeMounts=[volumes.mounted()])
    driver.cluster.apply(pod(name, main, volumes=[volumes.volume(CLASS)]))
    driver.cluster.wait_for_ready(name)
    assert driver.cluster.execute(name, "cat", f"/secrets/{CLASS}") == "content"


def test_kubelet_is_restarted(driver: Driver, row: Row) -> None:
    """It finds the driver again and pods start; no read fails."""
    prepare(driver)
    with reading(driver.cluster, CLASS, CLASS, CLASS) as readers:
        with readers.watched(row):
            driver.cluster.node.processes["kubelet"].restart()
            began = time.monotonic()
            starts(driver, "after-kubelet")
        row.remark(f"next pod ready after {time.monotonic() - began:.1f} s")
        driver.cluster.delete("pod", "after-kubelet")
        assert mountcheck.check(driver.cluster.node) == 1


def test_node_is_rebooted(driver: Driver, row: Row) -> None:
    """The power is cut: pods that were there before read again, and no mount is stale."""
    prepare(driver)
    cluster = driver.cluster
    with reading(cluster, CLASS, CLASS, CLASS) as readers:
        before = container_ids(cluster.wait_for_ready(CLASS))
        began = time.monotonic()
        cluster.node.reboot()
        row.remark(f"node ready {time.monotonic() - began:.1f} s after the power was cut")
        cluster.wait_until(
            "pods",
            CLASS,
            lambda found: is_ready(found) and before.isdisjoint(container_ids(found or {})),
            "all containers are others",
            timeout_s=REBOOT_TIMEOUT_S,
        )
        row.remark(f"pod ready after {time.monotonic() - began:.1f} s")
        with readers.watched(row):
            driver.wait_until_ready()
        assert mountcheck.check(cluster.node) == 1
    assert mountcheck.check(cluster.node) == 0


def container_ids(running: Thing) -> set[str]:
    """Return the ids of all containers of a pod."""
    return {each["containerID"] for each in running["status"]["containerStatuses"]}


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process inside the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def agents(node: Node) -> Iterator[Mapping[str, subprocess.Popen[bytes]]]:
    """Start the agents, and end those that do not by themselves."""
    running = {
        name: subprocess.Popen(
            node.machine.inside(*command),
            env=dict(node.machine.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for name, command in AGENTS.items()
    }
    try:
        yield running
    finally:
        for each in running.values():
            each.kill()
            each.wait()


def test_agents_ask_a_stopped_worker(driver: Driver, row: Row) -> None:
    """Whoever looks at the volume waits with its readers until there is another worker."""
    prepare(driver)
    with reading(driver.cluster, CLASS, CLASS, CLASS) as readers:
        [worker] = keeper.workers(driver)
        with readers.watched(row), stopped(worker), agents(driver.cluster.node) as asking:
            began = time.monotonic()
            for agent in asking.values():
                assert agent.wait(began + REPLACED_S - time.monotonic()) == 0
            row.remark(f"{' and '.join(AGENTS)} done after {time.monotonic() - began:.1f} s")
            assert worker not in keeper.workers(driver)


def test_pod_of_a_stopped_worker_goes(driver: Driver, row: Row) -> None:
    """The deletion of a pod does not wait for its worker; neither mount nor worker is left."""
    prepare(driver)
    with reading(driver.cluster, CLASS, CLASS, CLASS):
        [worker] = keeper.workers(driver)
        began = time.monotonic()
        with stopped(worker):
            driver.cluster.delete("pod", CLASS)
            row.remark(f"gone after {time.monotonic() - began:.1f} s")
            assert mountcheck.check(driver.cluster.node) == 0
            eventually(lambda: not keeper.workers(driver), "the worker is gone")

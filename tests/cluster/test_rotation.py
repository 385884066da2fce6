"""A secret changes while pods run."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from cluster import volumes
from cluster.driver import NAMESPACE, POLL_S, PROVIDER
from cluster.pods import container, pod, python
from cluster.reading import reading
from harness.waiting import eventually

if TYPE_CHECKING:
    from cluster.driver import Driver
    from cluster.table import Row

ROTATION_TIMEOUT_S: Final = 10 * POLL_S


def test_running_container_is_told_of_a_rotation(driver: Driver, row: Row) -> None:
    """A container sees new content on all three paths, and inotify tells of it afterwards."""
    live, single, data = "/secrets/told", "/single", "/secrets/..data/told"
    driver.vault.set(told="first")
    main = container(
        *python("watch", live, single, data, "/secrets"),
        volumeMounts=[volumes.mounted(), volumes.mounted(single, sub_path="told")],
    )
    driver.cluster.apply(
        volumes.vault_class("told", "told"),
        pod("told", main, volumes=[volumes.volume("told")]),
    )
    driver.cluster.wait_for_ready("told")

    def said() -> list[dict[str, Any]]:
        return [json.loads(line) for line in driver.cluster.log("told", "main").splitlines()]

    eventually(lambda: bool(said()), "it watches")
    assert set(said()[0]["files"].values()) == {"first"}
    began = time.monotonic()
    driver.vault.set(told="second")
    wanted = {
        (live, "MODIFY", ""),
        (live, "CLOSE_WRITE", ""),
        (single, "MODIFY", ""),
        (single, "CLOSE_WRITE", ""),
        ("/secrets", "MODIFY", "told"),
        ("/secrets", "CREATE", "..data_tmp"),
        ("/secrets", "MOVED_TO", "..data"),
    }
    eventually(
        lambda: wanted <= {(each["path"], each["kind"], each["name"]) for each in said()},
        "all events have come",
        timeout_s=ROTATION_TIMEOUT_S,
        pause_s=0.1,
    )
    row.remark(f"told after {time.monotonic() - began:.1f} s, polled every {POLL_S} s")
    for each in said():
        if each["kind"] == "MODIFY":
            assert each["files"] == dict.fromkeys((live, single, data), "second")


def test_readers_do_not_notice_a_rotation(driver: Driver, row: Row) -> None:
    """While a secret changes three times, no read fails on any path."""
    driver.vault.set(turning="0")
    driver.cluster.apply(volumes.vault_class("turning", "turning"))
    with reading(driver.cluster, "turning", "turning", "turning") as readers, readers.watched(row):
        for value in "123":
            driver.vault.set(turning=value)
            wait_until_read(driver, "turning", "/secrets/turning", value)
    row.remark("three rotations")


def test_readers_do_not_notice_a_broken_provider(driver: Driver, row: Row) -> None:
    """While the vault fails and the provider is replaced, no read fails; then content is new."""
    driver.vault.set(lasting="0")
    driver.cluster.apply(volumes.vault_class("lasting", "lasting"))
    with reading(driver.cluster, "lasting", "lasting", "lasting") as readers, readers.watched(row):
        driver.vault.client.fault("error", name="lasting", count=3)
        driver.vault.set(lasting="1")
        before = driver.pod(PROVIDER)
        driver.cluster.delete("pod", before["metadata"]["name"], namespace=NAMESPACE)
        driver.successor(PROVIDER, before)
        wait_until_read(driver, "lasting", "/secrets/lasting", "1")
    row.remark("HTTP status 500 three times, provider's pod deleted")


def wait_until_read(driver: Driver, pod_name: str, path: str, value: str) -> None:
    """Return when a pod of readers reads this at a path."""
    eventually(
        lambda: driver.cluster.execute(pod_name, "cat", path, container="c") == value,
        f"{path} is {value}",
        timeout_s=60.0,
        pause_s=0.3,
    )

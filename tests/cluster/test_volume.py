"""Pods with a volume: what they see while they run, and what is left of them afterwards."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cluster import mountcheck, volumes
from cluster.pods import container, pod
from cluster.starting import verifying, wait_until_exact
from harness.waiting import eventually

if TYPE_CHECKING:
    from cluster.driver import Driver
    from cluster.table import Row

PODS: Final = "/var/lib/kubelet/pods"


def assert_nothing_left(driver: Driver, uid: str, name: str, class_name: str) -> None:
    """Check that of a pod with the only volume no mount, directory, worker or status is left."""
    node = driver.cluster.node
    assert mountcheck.check(node) == 0
    eventually(lambda: not node.path(f"{PODS}/{uid}").exists(), "the pod's folder is gone")
    eventually(lambda: driver.workers() == [], "the worker is gone")
    status = f"{name}-default-{class_name}"
    driver.cluster.wait_until(
        volumes.STATUSES, status, lambda found: found is None, "the status is gone"
    )


def test_pod_reads_its_secret_and_goes(driver: Driver, row: Row) -> None:
    """A pod starts and reads; after its deletion mount, directory, worker and status are gone."""
    driver.vault.set(plain="first")
    driver.cluster.apply(volumes.vault_class("plain", "plain"))
    began = time.monotonic()
    driver.cluster.apply(verifying("plain", "plain", {"plain": b"first"}))
    wait_until_exact(driver.cluster, "plain")
    row.remark(f"started after {time.monotonic() - began:.1f} s")
    uid = driver.cluster.wait_for_ready("plain")["metadata"]["uid"]
    assert driver.cluster.api.get(
        "/apis/" + volumes.STATUSES.replace("secretp", "namespaces/default/secretp")
    )["items"]
    assert mountcheck.check(driver.cluster.node) == 1
    assert len(driver.workers()) == 1
    began = time.monotonic()
    driver.cluster.delete("pod", "plain")
    row.remark(f"gone after {time.monotonic() - began:.1f} s")
    assert_nothing_left(driver, uid, "plain", "plain")


def test_pod_reads_through_a_sub_path_and_goes(driver: Driver, row: Row) -> None:
    """A pod that has one file of the volume, and no more, reads it; nothing is left of it."""
    driver.vault.set(single="first", other="unseen")
    aliases = {"single": "dir/key"}
    driver.cluster.apply(volumes.vault_class("single", "single", "other", aliases=aliases))
    main = container(volumeMounts=[volumes.mounted("/etc/key", sub_path="dir/key")])
    driver.cluster.apply(pod("single", main, volumes=[volumes.volume("single")]))
    uid = driver.cluster.wait_for_ready("single")["metadata"]["uid"]
    assert driver.cluster.execute("single", "cat", "/etc/key") == "first"
    assert mountcheck.check(driver.cluster.node) == 1
    driver.cluster.delete("pod", "single")
    assert_nothing_left(driver, uid, "single", "single")
    row.remark("one file of two")


def test_group_of_the_pod_reads_and_nobody_else(driver: Driver, row: Row) -> None:
    """With fsGroup a container that is not root reads files that others may not; it writes none."""
    driver.vault.set(grouped="first", owned="first")
    classes = [
        volumes.vault_class("grouped", "grouped", permission="0440"),
        volumes.vault_class("owned", "owned", permission="0400"),
    ]
    main = container(
        volumeMounts=[volumes.mounted("/grouped", name="a"), volumes.mounted("/owned", name="b")],
        securityContext={"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    )
    driver.cluster.apply(
        *classes,
        pod(
            "grouped",
            main,
            volumes=[volumes.volume("grouped", name="a"), volumes.volume("owned", name="b")],
            securityContext={"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 2000},
        ),
    )
    driver.cluster.wait_for_ready("grouped")

    def shell(command: str) -> str:
        return driver.cluster.execute("grouped", "sh", "-c", f"{{ {command}; }} 2>&1 || true")

    assert shell("cat /grouped/grouped") == "first"
    assert shell("stat -c '%a %u %g' /grouped/grouped") == "440 0 2000\n"
    assert "Permission denied" in shell("cat /owned/owned")
    assert "Read-only file system" in shell("echo other >/grouped/other")
    driver.cluster.delete("pod", "grouped")
    row.remark("uid 1000, group 2000, mode 0440; 0400 is refused")


def test_pod_goes_while_files_are_open(driver: Driver, row: Row) -> None:
    """Open files, in the pod and of a program on the node, hold up no deletion."""
    driver.vault.set(held="first")
    driver.cluster.apply(volumes.vault_class("held", "held"))
    holding = "exec 3</secrets/held 4</secrets; cd /secrets/..data; exec sleep infinity"
    main = container("sh", "-c", holding, volumeMounts=[volumes.mounted()])
    driver.cluster.apply(pod("held", main, volumes=[volumes.volume("held")]))
    uid = driver.cluster.wait_for_ready("held")["metadata"]["uid"]
    target = f"{PODS}/{uid}/volumes/kubernetes.io~csi/{volumes.VOLUME}/mount"
    program = f"exec 3<{target}/held; sleep infinity >/dev/null 2>&1 & echo $!"
    holder = driver.cluster.node.run("sh", "-c", program).strip()
    began = time.monotonic()
    driver.cluster.delete("pod", "held")
    row.remark(f"gone after {time.monotonic() - began:.1f} s")
    assert_nothing_left(driver, uid, "held", "held")
    assert driver.cluster.node.run("readlink", f"/proc/{holder}/fd/3")  # it is still there
    driver.cluster.node.run("sh", "-c", f"kill {holder}")


def test_ten_pods_start_at_once(driver: Driver, row: Row) -> None:
    """Ten pods of one class start together, each with a mount of its own, and go together."""
    driver.vault.set(many="first")
    driver.cluster.apply(volumes.vault_class("many", "many"))
    names = [f"many-{number}" for number in range(10)]
    began = time.monotonic()
    driver.cluster.apply(*(verifying(name, "many", {"many": b"first"}) for name in names))
    for name in names:
        wait_until_exact(driver.cluster, name)
    row.remark(f"all started after {time.monotonic() - began:.1f} s")
    assert mountcheck.check(driver.cluster.node) == len(names)
    assert len(driver.workers()) == len(names)
    began = time.monotonic()
    driver.cluster.kubectl("delete", "pod", *names)
    row.remark(f"gone after {time.monotonic() - began:.1f} s")
    assert mountcheck.check(driver.cluster.node) == 0
    eventually(lambda: driver.workers() == [], "the workers are gone")

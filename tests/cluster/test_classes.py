"""Classes: for pods of their namespace only, and pods that come before them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster import volumes
from cluster.starting import assert_never_started, verifying, wait_until_exact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.cluster import Cluster
    from cluster.driver import Driver
    from cluster.table import Row


@contextmanager
def namespaces(cluster: Cluster, *names: str) -> Iterator[None]:
    """Make namespaces in which pods run and read the vault; they go with all that is in them."""
    for name in names:
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        cluster.apply(made, volumes.credentials(namespace=name))
    try:
        for name in names:
            cluster.wait_until(
                *("serviceaccounts", "default", lambda found: found is not None, "an account"),
                namespace=name,
            )
        yield
    finally:
        cluster.kubectl("delete", "namespace", *names)


def not_found(namespace: str, name: str) -> str:
    """Return what the reference driver says of a class that is not there."""
    return (
        f"failed to get secretproviderclass {namespace}/{name}, error: "
        f'secretproviderclasses.secrets-store.csi.x-k8s.io "{name}" not found'
    )


def test_namespaces_share_no_class(driver: Driver, row: Row) -> None:
    """A pod gets no class of another namespace; classes of one name are two."""
    driver.vault.set(of_blue="blue", of_green="green")
    cluster = driver.cluster
    with namespaces(cluster, "blue", "green"):
        cluster.apply(
            volumes.vault_class("same", "of-blue", namespace="blue"),
            volumes.vault_class("own", "of-blue", namespace="blue"),
            volumes.vault_class("same", "of-green", namespace="green"),
            verifying("same", "same", {"of-blue": b"blue"}, namespace="blue"),
            verifying("same", "same", {"of-green": b"green"}, namespace="green"),
            verifying("thief", "own", {"of-blue": b"blue"}, namespace="green"),
        )
        wait_until_exact(cluster, "same", namespace="blue")
        wait_until_exact(cluster, "same", namespace="green")
        told = cluster.wait_for_event("thief", not_found("green", "own"), namespace="green")
        assert told.startswith("FailedMount: ")
        assert_never_started(cluster, "thief", namespace="green")
    row.remark("same name, other content; foreign class not found")


def test_pod_waits_for_its_class(driver: Driver, row: Row) -> None:
    """Without its class a pod gets the reference's message; with it, it starts."""
    driver.vault.set(late="first")
    driver.cluster.apply(verifying("late", "late", {"late": b"first"}))
    told = driver.cluster.wait_for_event("late", not_found("default", "late"))
    assert told.startswith("FailedMount: ")
    assert_never_started(driver.cluster, "late")
    driver.cluster.apply(volumes.vault_class("late", "late"))
    began = time.monotonic()
    wait_until_exact(driver.cluster, "late")
    row.remark(f"started {time.monotonic() - began:.1f} s after the class came")

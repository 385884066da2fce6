"""Providers of others, and those that fail: no container starts without its exact content."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import grpc
import pytest

from cluster import volumes
from cluster.driver import POLL_S
from cluster.starting import assert_never_started, verifying, wait_until_exact
from cluster.vault import VAULT
from fakes.providersocket import FakeProvider, mount_response, provider_at
from harness.waiting import eventually
from provider._pb import v1alpha1_pb2
from provider._pb.v1alpha1_pb2 import MountRequest, MountResponse
from provider.emulator.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cluster.cluster import Cluster
    from cluster.driver import Driver
    from cluster.node import Node
    from cluster.table import Row

    Answer = Callable[[MountRequest, grpc.ServicerContext], MountResponse]

# The usual folder; /var/run is a link, which a path from outside the node must not follow.
SOCKETS: Final = "/run/secrets-store-csi-providers"
NAME: Final = "vendor"
FILES: Final = {"password": b"first", "dir/binary": bytes(range(256)) * 40, "empty": b""}
CODES: Final = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
CALL_TIMEOUT_S: Final = 30.0
UNUSABLE: Final = {
    "refused": (
        MountResponse(error=v1alpha1_pb2.Error(code="Sealed")),
        "mount request failed with provider error code Sealed",
    ),
    "unversioned": (MountResponse(files=mount_response(FILES).files), "missing object versions"),
    "climbing": (mount_response({"../password": b"first"}), "invalid file path"),
}
POD_NAME: Final = "csi.storage.k8s.io/pod.name"


@pytest.fixture
def vendor(driver: Driver) -> Iterator[FakeProvider]:
    """Provide a provider of somebody else on the node, and a class of it of the same name."""
    driver.cluster.apply(volumes.provider_class(NAME, NAME, some="parameter"))
    with vendor_on(driver.cluster.node) as fake:
        yield fake


@contextmanager
def vendor_on(node: Node) -> Iterator[FakeProvider]:
    """Run a provider whose socket is on the node, with `FILES` for everybody."""
    path = node.path(f"{SOCKETS}/{NAME}.sock")
    try:
        with provider_at(path) as fake:
            fake.answer = lambda *_: mount_response(FILES)
            yield fake
    finally:
        path.unlink()


class Failing:
    """An answer that fails some times for each pod, and then brings `FILES`.

    Attributes:
        failed: How often, by pod.
    """

    def __init__(self, times: int, code_for: Callable[[str], grpc.StatusCode]) -> None:
        """Fail `times` times for each pod, with the code for its name."""
        self.failed: dict[str, int] = {}
        self._times = times
        self._code_for = code_for
        self._lock = threading.Lock()

    def __call__(self, request: MountRequest, context: grpc.ServicerContext) -> MountResponse:
        """Answer one call."""
        pod = json.loads(request.attributes)[POD_NAME]
        with self._lock:
            fails = self.failed.setdefault(pod, 0) < self._times
            self.failed[pod] += fails
        if fails:
            context.abort(self._code_for(pod), "told to fail")
        return mount_response(FILES)


def start(cluster: Cluster, *names: str) -> float:
    """Create pods of the provider and return how long it took until all have found `FILES`."""
    began = time.monotonic()
    cluster.apply(*(verifying(name, NAME, FILES) for name in names))
    for name in names:
        wait_until_exact(cluster, name)
    return time.monotonic() - began


@pytest.mark.parametrize("times", [1, 3])
def test_pods_start_after_failures_of_each_code(
    driver: Driver, vendor: FakeProvider, row: Row, times: int
) -> None:
    """For each gRPC code a pod whose provider fails with it, once or three times, starts right."""
    names = {f"{code.name.lower().replace('_', '-')}-{times}": code for code in CODES}
    failing = Failing(times, names.__getitem__)
    vendor.answer = failing
    took = start(driver.cluster, *names)
    assert failing.failed == dict.fromkeys(names, times)
    row.remark(f"{len(names)} codes, a pod each; all started after {took:.1f} s")


def test_pods_start_after_failures_of_the_vault(driver: Driver, row: Row) -> None:
    """For each way in which a vault fails, a pod that meets it three times starts right."""
    names = [f"vault-{kind.value}" for kind in FaultKind]
    for kind, name in zip(FaultKind, names, strict=True):
        driver.vault.client.set_secret(VAULT, name, name)
        driver.vault.client.fault(kind, name=name, count=3, retry_after=1)
    began = time.monotonic()
    for name in names:
        content = {name: name.encode()}
        driver.cluster.apply(volumes.vault_class(name, name), verifying(name, name, content))
    for name in names:
        wait_until_exact(driver.cluster, name)
    row.remark(f"{', '.join(names)}; all started after {time.monotonic() - began:.1f} s")
    entries = driver.vault.client.request_log()
    suffered = Counter(each.name for each in entries if each.fault is not None)
    assert {name: suffered[name] for name in names} == dict.fromkeys(names, 3)


@pytest.mark.parametrize("reply", UNUSABLE)
def test_unusable_reply_starts_no_container(
    driver: Driver, vendor: FakeProvider, row: Row, reply: str
) -> None:
    """A reply that cannot be used is told in an event; the pod starts after a good one."""
    answer, told = UNUSABLE[reply]
    vendor.answer = lambda *_: answer
    driver.cluster.apply(verifying(reply, NAME, FILES))
    event = driver.cluster.wait_for_event(reply, told)
    assert event.startswith("FailedMount: ")
    assert_never_started(driver.cluster, reply)
    vendor.answer = lambda *_: mount_response(FILES)
    wait_until_exact(driver.cluster, reply)
    row.remark(told)


def test_pod_waits_for_its_provider(driver: Driver, row: Row) -> None:
    """Without the provider of its class a pod does not start; with it, it does."""
    driver.cluster.apply(volumes.provider_class(NAME, NAME, some="parameter"))
    driver.cluster.apply(verifying("absent", NAME, FILES))
    event = driver.cluster.wait_for_event("absent", f'provider not found: provider "{NAME}"')
    assert event.startswith("FailedMount: ")
    assert_never_started(driver.cluster, "absent")
    with vendor_on(driver.cluster.node):
        began = time.monotonic()
        wait_until_exact(driver.cluster, "absent")
        row.remark(f"started {time.monotonic() - began:.1f} s after the provider came")
        driver.cluster.delete("pod", "absent")


def test_provider_that_dies_is_asked_again(driver: Driver, row: Row) -> None:
    """When the provider ends with a call under way, the next one answers and the pod starts."""
    called = threading.Event()

    def hang(_: MountRequest, context: grpc.ServicerContext) -> MountResponse:
        over = threading.Event()
        context.add_callback(over.set)
        called.set()
        over.wait()
        return MountResponse()

    driver.cluster.apply(volumes.provider_class(NAME, NAME, some="parameter"))
    with vendor_on(driver.cluster.node) as fake:
        fake.answer = hang
        driver.cluster.apply(verifying("hanging", NAME, FILES))
        assert called.wait(CALL_TIMEOUT_S)
        assert_never_started(driver.cluster, "hanging")
    with vendor_on(driver.cluster.node):
        began = time.monotonic()
        wait_until_exact(driver.cluster, "hanging")
        row.remark(f"started {time.monotonic() - began:.1f} s after the next one came")
        driver.cluster.delete("pod", "hanging")


def test_files_of_a_foreign_provider_are_shown(
    driver: Driver, vendor: FakeProvider, row: Row
) -> None:
    """What a provider of others returns is shown with its modes and versions, and refreshed."""
    vendor.answer = lambda *_: mount_response(FILES, mode=0o640, version="v7")
    row.remark(f"started after {start(driver.cluster, 'foreign'):.1f} s")
    shown = driver.cluster.execute("foreign", "stat", "-c", "%a %s", "/secrets/dir/binary")
    assert shown == f"640 {len(FILES['dir/binary'])}\n"
    assert versions_told(driver.cluster, "foreign") == dict.fromkeys(FILES, "v7")
    vendor.answer = lambda *_: mount_response({"password": b"second"}, version="v8")
    eventually(
        lambda: versions_told(driver.cluster, "foreign") == {"password": "v8"},
        "the next version is told",
        timeout_s=10 * POLL_S,
        pause_s=0.2,
    )
    assert driver.cluster.execute("foreign", "cat", "/secrets/password") == "second"
    told = [[each.version for each in one.current_object_version] for one in vendor.requests]
    assert ["v7"] * len(FILES) in told


def test_provider_that_writes_itself_is_refused(
    driver: Driver, vendor: FakeProvider, row: Row
) -> None:
    """A provider that writes into the target: no container starts, and nothing stays there."""
    written: list[Path] = []

    def write(request: MountRequest, _: grpc.ServicerContext) -> MountResponse:
        target = driver.cluster.node.path(request.target_path)
        target.mkdir(exist_ok=True)
        (target / "password").write_bytes(b"first")
        written.append(target)
        return MountResponse(object_version=mount_response(FILES).object_version)

    vendor.answer = write
    driver.cluster.apply(verifying("writer", NAME, FILES))
    event = driver.cluster.wait_for_event(
        "writer", f'provider "{NAME}" writes files into the target by itself'
    )
    assert event.startswith("FailedMount: ")
    assert "driver-writes-secrets" in event
    assert_never_started(driver.cluster, "writer")
    driver.cluster.delete("pod", "writer")
    pod_folder = written[0].parents[3]
    eventually(lambda: not pod_folder.exists(), "the pod's folder is gone", timeout_s=30)
    row.remark("FailedMount names the remedy")


def versions_told(cluster: Cluster, pod: str) -> dict[str, str]:
    """Return the versions by path that the status of a pod tells."""
    status = cluster.wait_until(
        volumes.STATUSES, f"{pod}-default-{NAME}", lambda found: found is not None, "a status"
    )
    objects = (status or {})["status"]["objects"]
    return {each["id"].removeprefix("secret/"): each["version"] for each in objects}

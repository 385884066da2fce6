"""Classes, pods and statuses of a cluster, with a real API server and the chart's rights."""

from __future__ import annotations

import json
import logging
import re
import signal
from typing import TYPE_CHECKING, Final

import pytest

from cluster.driver import NAMESPACE, NODE_SERVER
from cluster.sources import (
    ELSEWHERE,
    GROUP,
    HERE,
    make_class,
    make_pod,
    off,
    reached,
    server,
    status_path,
    until,
)
from csi.classwatch import WatchedClasses
from csi.errors import ApiConflict, ApiExpired, ClassesUnavailable, ClassNotFound
from csi.record import decode_options
from fakes.keeper import FakeKeeper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.api import Thing
    from cluster.cluster import Cluster
    from cluster.driver import Driver

CHANGES: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
REQUEST: Final = re.compile(r'"(\w+) \S*/namespaces/[^/]+/(\w+)(/[^? ]+)?(\?\S*)? HTTP')
CLASSES: Final = "secretproviderclasses"
STATUSES: Final = "secretproviderclasspodstatuses"


@pytest.fixture(scope="module")
def admin(session_driver: Driver) -> Iterator[Cluster]:
    """Provide the cluster with the chart, and two namespaces that go with the module."""
    cluster = session_driver.cluster
    for name in (HERE, ELSEWHERE):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        cluster.wait_until(
            *("serviceaccounts", "default", lambda found: found is not None, "there is an account"),
            namespace=name,
        )
    yield cluster
    cluster.kubectl("delete", "namespace", HERE, ELSEWHERE, "--wait=false")


def asked(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return verb and resource of every request that was answered, as RBAC calls them."""
    found = []
    for record in caplog.records:
        matched = REQUEST.search(record.getMessage())
        if record.name == "urllib3.connectionpool" and matched is not None:
            method, resource, name, query = matched.groups()
            read = "watch" if "watch=true" in (query or "") else "get" if name else "list"
            found.append((CHANGES.get(method, read), resource))
    return found


def rights(admin: Cluster, account: str) -> set[tuple[str, str]]:
    """Return verb and resource of all that a service account of kube-system may do."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": HERE},
    }
    answer = admin.kubectl(
        *("create", f"--as=system:serviceaccount:{NAMESPACE}:{account}", "--validate=false"),
        *("--output=json", "--filename=-"),
        text=json.dumps(review),
    )
    return {
        (verb, resource)
        for rule in json.loads(answer)["status"]["resourceRules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }


async def annotate(admin: Cluster, pod: Thing) -> None:
    """Change a status as somebody else."""
    name = status_path(pod).rpartition("/")[2]
    await off(lambda: admin.kubectl("annotate", STATUSES, name, "team=blue", f"--namespace={HERE}"))


async def test_account_may_do_what_is_done(
    admin: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The chart gives the rights that a node server uses, no fewer and no more."""
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")
    await make_class(admin, "first")
    pod = await make_pod(admin, "rights")
    async with server(admin, tmp_path) as here:
        await here.publish(pod)
        await until(lambda: ("watch", CLASSES) in asked(caplog))
        here.providers.rotate()
        await make_class(admin, "second")
        await until(lambda: ("update", STATUSES) in asked(caplog))
    granted = await off(lambda: rights(admin, NODE_SERVER) - rights(admin, "default"))
    assert granted == set(asked(caplog))


async def test_denied_account_is_told_which_role(admin: Cluster, tmp_path: Path) -> None:
    """Without the chart's RBAC the message names verb, resource and role."""
    async with reached(admin, tmp_path, "default", HERE) as (api, _):
        classes = WatchedClasses(api, in_use=set, on_changed=lambda _namespace, _name: None)
        with pytest.raises(ClassesUnavailable) as told:
            await classes.get(HERE, "vault")
    assert f"failed to get secretproviderclass {HERE}/vault" in str(told.value)
    assert f"RBAC does not allow get on {CLASSES}" in str(told.value)
    assert "secretproviderclasses-role" in str(told.value)


async def test_missing_class_is_told_then_found(admin: Cluster, tmp_path: Path) -> None:
    """The reference's message; the next publish after the class came works at once."""
    pod = await make_pod(admin, "early")
    async with server(admin, tmp_path) as here:
        with pytest.raises(ClassNotFound) as told:
            await here.publish(pod, "late")
        assert str(told.value).startswith(
            f"failed to get secretproviderclass {HERE}/late, error: "
            f'{CLASSES}.{GROUP} "late" not found'
        )
        assert await here.status(pod, "late") is None
        await make_class(admin, "kv", name="late")
        await here.publish(pod, "late")
        assert await here.status(pod, "late") is not None


async def test_classes_stay_in_their_namespace(admin: Cluster, tmp_path: Path) -> None:
    """The class of another namespace cannot be used; where no volume is nobody watches."""
    await make_class(admin, "kv", name="theirs", namespace=ELSEWHERE)
    await make_class(admin, "kv")
    pod = await make_pod(admin, "curious")
    async with server(admin, tmp_path) as here:
        with pytest.raises(ClassNotFound, match=f"{HERE}/theirs"):
            await here.publish(pod, "theirs")
        await here.publish(pod)
        assert here.watched == {HERE}


async def test_edits_and_deletions_are_followed(admin: Cluster, tmp_path: Path) -> None:
    """An edit refreshes volumes; a deleted class gives no new volume, and may come back."""
    await make_class(admin, "before", name="edited")
    pod = await make_pod(admin, "edited")
    async with server(admin, tmp_path) as here:
        await here.publish(pod, "edited")
        await make_class(admin, "after", name="edited")
        await here.told("after")
        await off(lambda: admin.delete(f"{CLASSES}.{GROUP}", "edited", namespace=HERE))
        await here.forgotten("edited")
        with pytest.raises(ClassNotFound):
            await here.publish(await make_pod(admin, "too-late"), "edited")
        assert here.keeper.kept  # the running pod keeps what it has
        await make_class(admin, "again", name="edited")
        await here.told("again")


async def test_dropped_watch_is_taken_up_again(
    admin: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections that vanish miss no edit; while in step, looking up asks nobody."""
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")
    await make_class(admin, "before")
    pod = await make_pod(admin, "dropped")
    async with server(admin, tmp_path) as here:
        await here.publish(pod)
        await until(lambda: ("watch", CLASSES) in asked(caplog))
        here.way.cut()
        await make_class(admin, "meanwhile")
        await here.told("meanwhile")
        await until(lambda: asked(caplog).count(("watch", CLASSES)) == 2)
        before = len(asked(caplog))
        await here.find_class("vault")
        assert len(asked(caplog)) == before


async def test_restarted_api_server_misses_no_edit(
    admin: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While it is away classes are as they were; after that watches begin anew, from a list."""
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")
    await make_class(admin, "before")
    pod = await make_pod(admin, "restarted")
    process = admin.node.processes["kube-apiserver"]
    async with server(admin, tmp_path) as here:
        await here.publish(pod)
        await until(lambda: ("watch", CLASSES) in asked(caplog))
        version = (await here.api.list_classes(HERE)).version
        await make_class(admin, "unseen", name="other")
        await off(lambda: process.end(signal.SIGKILL))
        await until(lambda: "watch of a namespace lost" in caplog.text)
        await here.find_class("vault")
        await off(process.restart)
        await until(admin.api.is_ready)
        await make_class(admin, "after")
        await here.told("after")
        # The new server knows nothing of what was before itself: 410 Gone.
        with pytest.raises(ApiExpired):
            async with here.api.watch_classes(HERE, version) as stream:
                await stream.next()


async def test_user_namespace_of_a_pod_is_known(admin: Cluster, tmp_path: Path) -> None:
    """Only its object says so; a pod that the API does not know is taken to have none."""
    await make_class(admin, "vault")
    own = await make_pod(admin, "own-users", hostUsers=False)
    pod = await make_pod(admin, "unknown")
    await off(lambda: admin.delete("pod", "unknown", namespace=HERE))
    async with server(admin, tmp_path) as here:
        for each, expected in ((own, True), (pod, False)):
            spec = await here.publish(each)
            shown = here.core.registry.shown(spec.volume_id)
            assert shown is not None
            assert decode_options(shown.record).user_namespace is expected


async def test_status_is_the_references(admin: Cluster, tmp_path: Path) -> None:
    """Name, label, owner and every field, when the publish returns; versions follow rotations."""
    await make_class(admin, "kv")
    pod = await make_pod(admin, "told")
    async with server(admin, tmp_path) as here:
        here.providers.files = {"b": b"2", "a": b"1"}
        spec = await here.publish(pod)
        status = await here.status(pod)
        assert status is not None
        metadata = status["metadata"]
        assert metadata["labels"] == {"internal.secrets-store.csi.k8s.io/node-name": "node-1"}
        assert metadata["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Pod", "name": "told", "uid": pod["metadata"]["uid"]}
        ]
        assert status["status"] == {
            "podName": "told",
            "secretProviderClassName": "vault",
            "mounted": True,
            "targetPath": spec.target,
            "objects": [{"id": "secret/a", "version": "v1"}, {"id": "secret/b", "version": "v1"}],
        }
        await annotate(admin, pod)
        here.providers.rotate(a=b"3")
        await make_class(admin, "rotated")
        await here.shows(pod, "v2")
        rotated = await here.status(pod)
        assert rotated is not None
        assert rotated["metadata"]["uid"] == metadata["uid"]
        assert rotated["metadata"]["annotations"] == {"team": "blue"}


async def test_unchanged_status_is_not_written(
    admin: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not on a republish, on a refresh without news, nor by the next node server."""
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")
    keeper = FakeKeeper()
    await make_class(admin, "kv")
    pod = await make_pod(admin, "quiet")
    async with server(admin, tmp_path, keeper) as here:
        await here.publish(pod)
        first = await here.version(pod)
        await here.publish(pod)
        await make_class(admin, "asks-again")
        await here.told("asks-again")
        assert await here.version(pod) == first
    async with server(admin, tmp_path, keeper) as here:
        spec = await here.publish(pod)  # resumed: with its first credentials it refreshes
        await until(lambda: ("get", STATUSES) in asked(caplog))
        await here.settled(spec)
        assert await here.version(pod) == first
    assert ("update", STATUSES) not in asked(caplog)


async def test_stale_status_is_not_overwritten(admin: Cluster, tmp_path: Path) -> None:
    """Who has read an older version gets a conflict, and changes nothing."""
    await make_class(admin, "kv")
    pod = await make_pod(admin, "stale")
    name = status_path(pod).rpartition("/")[2]
    async with server(admin, tmp_path) as here:
        await here.publish(pod)
        read = await here.api.get_status(HERE, name)
        await annotate(admin, pod)
        with pytest.raises(ApiConflict):
            await here.api.replace_status(HERE, name, read)
        with pytest.raises(ApiConflict):
            await here.api.create_status(HERE, {**read, "metadata": {"name": name}})
        assert (await here.api.get_status(HERE, name))["metadata"]["annotations"]


async def test_status_goes_with_its_pod(admin: Cluster, tmp_path: Path) -> None:
    """An unpublish leaves it; it is the pod's, and the next pod of that name has its own."""
    await make_class(admin, "kv")
    before = await make_pod(admin, "again")
    async with server(admin, tmp_path) as here:
        spec = await here.publish(before)
        await here.unpublish(spec)
        assert await here.status(before) is not None
        await off(lambda: admin.delete("pod", "again", namespace=HERE))
        after = await make_pod(admin, "again")
        await here.publish(after)
        status = await here.status(after)
        assert status is not None
        [owner] = status["metadata"]["ownerReferences"]
        assert owner["uid"] == after["metadata"]["uid"] != before["metadata"]["uid"]
        await off(lambda: admin.delete("pod", "again", namespace=HERE))
        await here.gone(after)

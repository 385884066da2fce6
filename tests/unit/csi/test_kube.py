"""Calls to the Kubernetes API, against a server that speaks the slice of it that is needed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from csi.classes import ProviderClass
from csi.errors import (
    ApiConflict,
    ApiError,
    ApiExpired,
    ApiNotFound,
    ApiRejected,
    ApiUnavailable,
    ApiUnconfigured,
    ClassNotFound,
    ClassUnusable,
)
from csi.kube import KubeApi
from fakes.kubeapi import CLASSES, GROUP, STATUSES, TOKEN, Answer, Running, kube_api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Running]:
    """A server and a client of it."""
    with kube_api(tmp_path) as running:
        yield running


def _status(version: str = "v1") -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "SecretProviderClassPodStatus",
        "metadata": {"name": "web-shop-vault", "namespace": "shop"},
        "status": {"objects": [{"id": "secret/password", "version": version}]},
    }


async def test_class_is_read_with_token_and_tls(kube: Running) -> None:
    """The kubeconfig's authority and token are what a call is made with."""
    kube.server.put_class("vault", keyvaultName="kv", objects="x")
    found = await kube.api.get_class("shop", "vault")
    assert found == ProviderClass(
        namespace="shop",
        name="vault",
        provider="azure",
        parameters={"keyvaultName": "kv", "objects": "x"},
    )


async def test_missing_class_has_the_references_text(kube: Running) -> None:
    """Users and tests look for exactly this text."""
    with pytest.raises(ClassNotFound) as caught:
        await kube.api.get_class("shop", "vault")
    assert str(caught.value).startswith(
        "failed to get secretproviderclass shop/vault, error: "
        'secretproviderclasses.secrets-store.csi.x-k8s.io "vault" not found'
    )


async def test_missing_crd_is_no_missing_class(kube: Running) -> None:
    """A server that does not know the kind is an installation to finish, not a typing error."""
    kube.server.kinds.clear()
    with pytest.raises(ApiUnavailable, match="install the CRDs"):
        await kube.api.get_class("shop", "vault")


@pytest.mark.parametrize("name", ["..", "../../pods/web", "a/b", "A", "", "x?watch=1"])
async def test_class_name_cannot_leave_its_path(kube: Running, name: str) -> None:
    """A pod's author writes the name; the server is not asked what no class can be called."""
    with pytest.raises(ClassNotFound):
        await kube.api.get_class("shop", name)
    assert kube.server.calls == []


async def test_class_with_wrong_types_comes_as_such(kube: Running) -> None:
    """The CRD refuses it; an old one may not."""
    kube.server.put(CLASSES, "shop", "vault", {"spec": {"provider": 7}})
    assert isinstance(await kube.api.get_class("shop", "vault"), ClassUnusable)


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, ApiUnavailable, "does not accept the token"),
        (403, ApiUnavailable, "RBAC does not allow get on secretproviderclasses"),
        (409, ApiConflict, "changed meanwhile"),
        (410, ApiExpired, "too old"),
        (422, ApiRejected, "not valid"),
        (429, ApiUnavailable, "too much to do"),
        (500, ApiUnavailable, "answers 500"),
        (503, ApiUnavailable, "answers 503"),
        (None, ApiUnavailable, "cannot be reached"),
    ],
)
async def test_refusals_are_told_without_their_bodies(
    kube: Running, status: int | None, kind: type[ApiError], says: str
) -> None:
    """Each kind is an error of its own with a remedy, and shows neither body nor token."""
    kube.server.fail("get", CLASSES, status, status)
    with pytest.raises(kind, match=says) as caught:
        await kube.api.get_class("shop", "vault")
    shown = f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"
    assert "not for eyes" not in shown
    assert TOKEN not in shown


async def test_server_that_asks_for_patience_is_heard(kube: Running) -> None:
    """Retry-After comes along with the error."""
    kube.server.fail("get", CLASSES, 429, Retry_After="7")
    with pytest.raises(ApiUnavailable) as caught:
        await kube.api.get_class("shop", "vault")
    assert caught.value.retry_after == 7.0


async def test_answer_that_is_no_json_is_unavailable(kube: Running) -> None:
    """A proxy's page is no class."""
    kube.server.faults["get", CLASSES] = [Answer(200, body=b"<html>welcome</html>")]
    with pytest.raises(ApiUnavailable, match="no JSON"):
        await kube.api.get_class("shop", "vault")


async def test_server_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    """A refused connection is told as such."""
    with kube_api(tmp_path) as running:
        pass
    with pytest.raises(ApiUnavailable, match="cannot be reached"):
        await running.api.get_class("shop", "vault")


async def test_call_ends_with_its_caller(kube: Running) -> None:
    """A silent server holds a thread for a while, but no task."""
    asked, release = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def wait(_verb: str, _resource: str) -> None:
        token.run_sync_soon(asked.set)
        release.wait(20)

    kube.server.hook = wait
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kube.api.list_classes, "shop")
        await asked.wait()
        nursery.cancel_scope.cancel()
    release.set()


async def test_list_holds_every_class_of_a_namespace(kube: Running) -> None:
    """And none of another."""
    kube.server.put_class("one")
    kube.server.put_class("two")
    kube.server.put_class("three", namespace="other")
    listed = await kube.api.list_classes("shop")
    assert sorted(listed.classes) == ["one", "two"]
    assert listed.version == kube.server.state()[0]


async def test_watch_tells_changes_until_its_end(kube: Running) -> None:
    """Added, modified, a bookmark, deleted, and an end that is no failure."""
    version = (await kube.api.list_classes("shop")).version
    kube.server.put_class("vault")
    async with kube.api.watch_classes("shop", version) as stream:
        added = await stream.next()
        kube.server.put_class("vault", keyvaultName="other")
        modified = await stream.next()
        kube.server.send(
            CLASSES,
            "shop",
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "900"}}},
        )
        bookmark = await stream.next()
        kube.server.delete(CLASSES, "shop", "vault")
        deleted = await stream.next()
        kube.server.cut_watches()
        end = await stream.next()
    assert added is not None
    assert isinstance(added.found, ProviderClass)
    assert modified is not None
    assert isinstance(modified.found, ProviderClass)
    assert modified.found.parameters == {"keyvaultName": "other"}
    assert bookmark is not None
    assert (bookmark.version, bookmark.name) == ("900", "")
    assert deleted is not None
    assert (deleted.name, deleted.found) == ("vault", None)
    assert end is None


async def test_watch_of_a_forgotten_version_expires(kube: Running) -> None:
    """The server may say so at once or in an event."""
    kube.server.fail("watch", CLASSES, 410)
    with pytest.raises(ApiExpired):
        async with kube.api.watch_classes("shop", "1"):
            pass
    async with kube.api.watch_classes("shop", "100") as stream:
        gone = {"code": 410, "metadata": {"resourceVersion": "0"}}
        kube.server.send(CLASSES, "shop", {"type": "ERROR", "object": gone})
        with pytest.raises(ApiExpired):
            await stream.next()


async def test_watch_ends_with_its_task(kube: Running) -> None:
    """A thread that waits for the next change is woken, and the connection closed."""
    async with trio.open_nursery() as nursery:
        watching = trio.Event()

        async def watch() -> None:
            async with kube.api.watch_classes("shop", "100") as stream:
                watching.set()
                await stream.next()

        nursery.start_soon(watch)
        await watching.wait()
        nursery.cancel_scope.cancel()


async def test_status_is_created_read_and_replaced(kube: Running) -> None:
    """With the version that was read; another one is a conflict."""
    await kube.api.create_status("shop", _status())
    with pytest.raises(ApiConflict):
        await kube.api.create_status("shop", _status())
    found = await kube.api.get_status("shop", "web-shop-vault")
    newer = {**_status("v2"), "metadata": found["metadata"]}
    await kube.api.replace_status("shop", "web-shop-vault", newer)
    with pytest.raises(ApiConflict):
        await kube.api.replace_status("shop", "web-shop-vault", newer)
    stored = await kube.api.get_status("shop", "web-shop-vault")
    assert stored["status"] == newer["status"]
    assert kube.server.verbs(STATUSES) == ["create", "create", "get", "update", "update", "get"]


@pytest.mark.parametrize(("host_users", "own"), [(None, False), (True, False), (False, True)])
async def test_user_namespace_is_read_from_the_pod(
    kube: Running,
    host_users: bool | None,  # noqa: FBT001 - a case
    own: bool,  # noqa: FBT001 - a case
) -> None:
    """Absent means that the pod shares the node's."""
    spec = {"nodeName": "n"} if host_users is None else {"hostUsers": host_users}
    kube.server.put("pods", "shop", "web", {"spec": spec})
    assert await kube.api.has_user_namespace("shop", "web") is own


async def test_missing_pod_is_not_found(kube: Running) -> None:
    """It was deleted while kubelet still mounts its volumes."""
    with pytest.raises(ApiNotFound):
        await kube.api.has_user_namespace("shop", "web")


async def test_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """The flag and the file stand in the message."""
    broken = tmp_path / "kubeconfig"
    broken.write_text("nothing: here")
    with pytest.raises(ApiUnconfigured, match="--kubeconfig") as caught:
        KubeApi.load(broken)
    assert str(broken) in str(caught.value)


async def test_program_outside_a_cluster_names_flags() -> None:
    """There is no service account here."""
    with pytest.raises(ApiUnconfigured, match="--class-dir"):
        KubeApi.load(None)

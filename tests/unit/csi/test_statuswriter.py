"""When a SecretProviderClassPodStatus is written, and what happens if it cannot be."""

from __future__ import annotations

import copy
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from typing_extensions import override

from csi.errors import ApiConflict, ApiError, ApiNotFound, ApiUnavailable
from csi.records import ObjectVersion, VolumeSpec
from csi.statuswriter import StatusApi, StatusWriter
from fakes.kubeapi import STATUSES, kube_api
from fakes.kubelet import publish_request
from fakes.polling import poll_value
from fakes.virtualtime import virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

SPEC = publish_request().spec
NAME = f"{SPEC.pod}-{SPEC.namespace}-{SPEC.class_name}"


class FakeStatusApi(StatusApi):
    """One object, with the times of all calls; errors to come are raised first."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.calls: list[tuple[str, float]] = []
        self.errors: list[ApiError] = []
        self.always: ApiError | None = None
        self.takes = 0.0

    @property
    def verbs(self) -> list[str]:
        """What was called."""
        return [verb for verb, _ in self.calls]

    async def _call(self, verb: str) -> None:
        self.calls.append((verb, trio.current_time()))
        await trio.sleep(self.takes)
        if self.errors:
            raise self.errors.pop(0)
        if self.always:
            raise self.always

    @override
    async def get_status(self, namespace: str, name: str) -> dict[str, Any]:
        await self._call("get")
        if self.stored is None:
            msg = "none"
            raise ApiNotFound(msg, kind_known=True)
        return copy.deepcopy(self.stored)

    @override
    async def create_status(self, namespace: str, document: Mapping[str, Any]) -> None:
        await self._call("create")
        if self.stored is not None:
            msg = "exists"
            raise ApiConflict(msg)
        self.stored = copy.deepcopy(dict(document))

    @override
    async def replace_status(self, namespace: str, name: str, document: Mapping[str, Any]) -> None:
        await self._call("update")
        self.stored = copy.deepcopy(dict(document))


class _Node:
    """One volume of a node, and the writer above a fake."""

    def __init__(self, api: StatusApi) -> None:
        self.shown: list[tuple[VolumeSpec, tuple[ObjectVersion, ...]]] = []
        self.writer = StatusWriter(api, node_id="node-1", shown=lambda: self.shown)

    def show(self, version: str) -> None:
        """Show a version, and tell the writer."""
        self.shown = [(SPEC, (ObjectVersion("secret/password", version),))]
        self.writer.note(SPEC)

    def hide(self) -> None:
        """Take the volume away, and tell the writer."""
        self.shown = []
        self.writer.note(SPEC)


@asynccontextmanager
async def _node(api: StatusApi) -> AsyncIterator[_Node]:
    node = _Node(api)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.writer.run)
        yield node
        nursery.cancel_scope.cancel()


def _version(stored: dict[str, Any] | None) -> str:
    assert stored is not None
    return str(stored["status"]["objects"][0]["version"])


@virtual_time
async def test_first_content_is_created_at_once() -> None:
    """Nobody waits for an interval."""
    api = FakeStatusApi()
    async with _node(api) as node:
        node.show("1")
        await trio.sleep(0.1)
    assert api.verbs == ["create"]
    assert _version(api.stored) == "1"


@virtual_time
async def test_unchanged_content_is_not_written() -> None:
    """However often a volume is refreshed."""
    api = FakeStatusApi()
    async with _node(api) as node:
        for _ in range(5):
            node.show("1")
            await trio.sleep(10)
    assert api.verbs == ["create"]


@virtual_time
async def test_rotation_replaces_what_was_written() -> None:
    """Read, compared, replaced."""
    api = FakeStatusApi()
    async with _node(api) as node:
        for version in ("1", "2"):
            node.show(version)
            await trio.sleep(1)
    assert api.verbs == ["create", "get", "update"]
    assert _version(api.stored) == "2"


@virtual_time
async def test_new_node_server_writes_nothing_anew() -> None:
    """The object of the one before says so already."""
    api = FakeStatusApi()
    for _ in range(2):
        async with _node(api) as node:
            node.show("1")
            await trio.sleep(1)
    assert api.verbs == ["create", "create", "get"]


@virtual_time
async def test_conflict_is_read_again_and_replaced() -> None:
    """Somebody else wrote between our read and our write."""
    api = FakeStatusApi()
    async with _node(api) as node:
        node.show("1")
        await trio.sleep(1)
        node.show("2")
        api.errors = [ApiConflict("changed")]
        await trio.sleep(1)
    assert _version(api.stored) == "2"
    assert api.verbs == ["create", "get", "get", "update"]


@virtual_time
async def test_conflicts_without_end_are_tried_later() -> None:
    """Five times in a row, then after a pause."""
    api = FakeStatusApi()
    api.always = ApiConflict("changed")
    async with _node(api) as node:
        node.show("1")
        await trio.sleep(0.5)
        assert len(api.calls) == 5
        api.always = None
        await trio.sleep(5)
    assert _version(api.stored) == "1"


@virtual_time
async def test_object_deleted_by_somebody_is_created() -> None:
    """At the next change."""
    api = FakeStatusApi()
    async with _node(api) as node:
        node.show("1")
        await trio.sleep(1)
        api.stored = None
        node.show("2")
        await trio.sleep(1)
    assert api.verbs == ["create", "get", "create"]
    assert _version(api.stored) == "2"


@virtual_time
async def test_missing_kind_is_asked_for_ever_less() -> None:
    """An old cluster costs a call in ten minutes, and one warning."""
    api = FakeStatusApi()
    api.always = ApiNotFound("no such kind", kind_known=False)
    async with _node(api) as node:
        node.show("1")
        await trio.sleep(7200)
        assert 10 < len(api.calls) < 40
        api.always = None
        await trio.sleep(600)
    assert _version(api.stored) == "1"


@virtual_time
async def test_change_during_a_write_is_written_too() -> None:
    """Only the last of several, and never none."""
    api = FakeStatusApi()
    async with _node(api) as node:
        node.show("1")
        api.errors = [ApiUnavailable("away")]
        await trio.sleep(0.1)
        for version in ("2", "3"):
            node.show(version)
        await trio.sleep(5)
    assert api.verbs == ["create", "create"]
    assert _version(api.stored) == "3"


@virtual_time
async def test_writer_waits_as_long_as_it_is_asked_to() -> None:
    """Retry-After counts more than our own delay."""
    api = FakeStatusApi()
    async with _node(api) as node:
        api.errors = [ApiUnavailable("busy", retry_after=100)]
        node.show("1")
        await trio.sleep(49)
        assert len(api.calls) == 1
        await trio.sleep(60)
    assert _version(api.stored) == "1"


@virtual_time
async def test_volume_that_is_gone_is_forgotten() -> None:
    """The object goes with its pod; a pod of the same name gets its own."""
    api = FakeStatusApi()
    async with _node(api) as node:
        node.show("1")
        await trio.sleep(1)
        node.hide()
        await trio.sleep(1)
        assert api.verbs == ["create"]
        api.stored = None
        node.show("1")
        await trio.sleep(1)
    assert api.verbs == ["create", "create"]


@virtual_time
async def test_settled_is_when_it_is_written() -> None:
    """However long that takes, within five seconds; what is written already is settled."""
    api = FakeStatusApi()
    async with _node(api) as node:
        api.takes = 4.0
        node.show("1")
        await node.writer.settled(SPEC)
        assert (trio.current_time(), _version(api.stored)) == (4.0, "1")
        node.show("1")
        await node.writer.settled(SPEC)
        assert trio.current_time() == 4.0


@virtual_time
async def test_settled_does_not_wait_for_ever() -> None:
    """A pod starts without its status, which is written when the API answers."""
    api = FakeStatusApi()
    async with _node(api) as node:
        api.takes = 60.0
        node.show("1")
        await node.writer.settled(SPEC)
        assert trio.current_time() == 5.0
        await trio.sleep(60)
    assert _version(api.stored) == "1"


@virtual_time
async def test_failure_settles_it_for_now() -> None:
    """Nobody waits for the next attempt, nor for one that goes on failing."""
    api = FakeStatusApi()
    async with _node(api) as node:
        api.always = ApiUnavailable("away")
        node.show("1")
        await node.writer.settled(SPEC)
        await node.writer.settled(SPEC)
        assert trio.current_time() == 0
        api.always = None
        await trio.sleep(5)
    assert _version(api.stored) == "1"


@pytest.mark.parametrize("fault", [403, 409, 429, 500, None])
async def test_status_gets_through_after_each_fault(tmp_path: Path, fault: int | None) -> None:
    """Refused or dropped once, on a real connection."""
    with kube_api(tmp_path) as kube:
        kube.server.fail("create", STATUSES, fault)
        kube.server.fail("get", STATUSES, fault)
        async with _node(kube.api) as node:
            node.show("1")
            await poll_value(lambda: (STATUSES, SPEC.namespace, NAME) in kube.server.objects, True)  # noqa: FBT003

"""Watching classes: in virtual time above a fake, and once above a server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from typing_extensions import override

from csi.classes import ProviderClass
from csi.classwatch import ClassApi, ClassEvent, ClassList, ClassStream, Found, WatchedClasses
from csi.errors import (
    ApiError,
    ApiExpired,
    ApiUnavailable,
    ClassesUnavailable,
    ClassNotFound,
    ClassUnusable,
)
from fakes.kubeapi import CLASSES, kube_api
from fakes.polling import poll_value
from fakes.virtualtime import virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def _class(name: str = "vault", vault: str = "kv") -> ProviderClass:
    return ProviderClass(
        namespace="shop", name=name, provider="azure", parameters={"keyvaultName": vault}
    )


class FakeClassApi(ClassApi):
    """Classes of the namespace "shop", with the times of all calls."""

    def __init__(self) -> None:
        self.classes: dict[str, Found] = {"vault": _class()}
        self.calls: list[tuple[str, float]] = []
        self.error: ApiError | None = None
        self.defect: Exception | None = None
        self.send, self._receive = trio.open_memory_channel[ClassEvent | ApiError | None](100)

    def change(self, found: Found | None, name: str = "vault") -> None:
        """Change a class and tell the watch; None deletes it."""
        if found is None:
            del self.classes[name]
        else:
            self.classes[name] = found
        self.send.send_nowait(ClassEvent(version="2", name=name, found=found))

    def times(self, verb: str) -> list[float]:
        """Return when a verb was called."""
        return [moment for called, moment in self.calls if called == verb]

    async def _call(self, verb: str) -> None:
        self.calls.append((verb, trio.current_time()))
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error

    @override
    async def get_class(self, namespace: str, name: str) -> Found:
        await self._call("get")
        if name not in self.classes:
            raise ClassNotFound(namespace, name)
        return self.classes[name]

    @override
    async def list_classes(self, namespace: str) -> ClassList:
        await self._call("list")
        if self.defect is not None:
            raise self.defect
        return ClassList(version="1", classes=dict(self.classes))

    @override
    @asynccontextmanager
    async def watch_classes(self, namespace: str, version: str) -> AsyncIterator[ClassStream]:
        await self._call(f"watch {version}")
        yield _FakeStream(self._receive)


class _FakeStream(ClassStream):
    def __init__(self, receive: trio.MemoryReceiveChannel[ClassEvent | ApiError | None]) -> None:
        self._receive = receive

    @override
    async def next(self) -> ClassEvent | None:
        event = await self._receive.receive()
        if isinstance(event, ApiError):
            raise event
        return event


class _Watching:
    """A source above the fake, its uses, and what it told."""

    def __init__(self) -> None:
        self.api = FakeClassApi()
        self.in_use = {"shop"}
        self.changed: list[str] = []
        self.source = WatchedClasses(self.api, in_use=lambda: self.in_use, on_changed=self._note)

    def _note(self, namespace: str, name: str) -> None:
        self.changed.append(f"{namespace}/{name}")


@asynccontextmanager
async def _watching() -> AsyncIterator[_Watching]:
    here = _Watching()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.source.run)
        await trio.testing.wait_all_tasks_blocked()
        yield here
        nursery.cancel_scope.cancel()


@virtual_time
async def test_second_look_up_asks_nobody() -> None:
    """While the watch is in step, memory answers."""
    async with _watching() as here:
        await here.source.get("shop", "vault")
        await trio.sleep(1)
        assert await here.source.get("shop", "vault") == _class()
        assert len(here.api.times("get")) == 1


@virtual_time
async def test_change_is_told_and_seen_at_once() -> None:
    """Without asking the API again."""
    async with _watching() as here:
        await here.source.get("shop", "vault")
        await trio.sleep(1)
        here.api.change(_class(vault="other"))
        await trio.sleep(0.1)
        assert here.changed == ["shop/vault"]
        assert await here.source.get("shop", "vault") == _class(vault="other")
        assert len(here.api.times("get")) == 1


@virtual_time
async def test_change_of_labels_only_is_not_told() -> None:
    """What the provider gets is the same, so nothing is to be refreshed."""
    async with _watching() as here:
        await here.source.get("shop", "vault")
        await trio.sleep(1)
        here.api.change(_class())
        await trio.sleep(0.1)
        assert here.changed == []


@virtual_time
async def test_class_nobody_asked_for_is_not_told() -> None:
    """A first list must not refresh every volume of a namespace."""
    async with _watching() as here:
        here.api.classes["other"] = _class("other")
        await here.source.get("shop", "vault")
        await trio.sleep(1)
        assert here.changed == []


@virtual_time
async def test_class_created_again_is_told() -> None:
    """Deleted: not found, from the API itself; then back."""
    async with _watching() as here:
        await here.source.get("shop", "vault")
        await trio.sleep(1)
        here.api.change(None)
        await trio.sleep(0.1)
        with pytest.raises(ClassNotFound):
            await here.source.get("shop", "vault")
        here.api.change(_class())
        await trio.sleep(0.1)
        assert here.changed == ["shop/vault"]


@virtual_time
async def test_class_created_a_moment_ago_is_found() -> None:
    """A watch may be late, so an unknown class is asked for."""
    async with _watching() as here:
        await here.source.get("shop", "vault")
        await trio.sleep(1)
        here.api.classes["new"] = _class("new")
        assert await here.source.get("shop", "new") == _class("new")


@virtual_time
async def test_unusable_class_is_raised_each_time() -> None:
    """From memory as from the API."""
    async with _watching() as here:
        here.api.classes["vault"] = ClassUnusable(
            "shop", "vault", problem="wrong type", field="spec", remedy="quote it"
        )
        for _ in range(2):
            with pytest.raises(ClassUnusable):
                await here.source.get("shop", "vault")
            await trio.sleep(1)


@virtual_time
async def test_watch_goes_on_where_the_server_ended_it() -> None:
    """An end is no failure: no list, but the version of the last event."""
    async with _watching() as here:
        await here.source.get("shop", "vault")
        await trio.sleep(10)
        here.api.change(_class(vault="other"))
        await trio.sleep(10)
        here.api.send.send_nowait(None)
        await trio.sleep(10)
        assert [verb for verb, _ in here.api.calls] == ["get", "list", "watch 1", "watch 2"]


@virtual_time
async def test_expired_watch_lists_again() -> None:
    """And tells what changed meanwhile."""
    async with _watching() as here:
        await here.source.get("shop", "vault")
        await trio.sleep(1)
        here.api.classes["vault"] = _class(vault="other")
        here.api.send.send_nowait(ApiExpired("410"))
        await trio.sleep(2)
        assert len(here.api.times("list")) == 2
        assert here.changed == ["shop/vault"]


@virtual_time
async def test_lost_watch_lists_with_growing_delays() -> None:
    """A server that is away is not hammered."""
    async with _watching() as here:
        await here.source.get("shop", "vault")
        await trio.sleep(1)
        here.api.error = ApiUnavailable("away")
        here.api.send.send_nowait(ApiUnavailable("lost"))
        await trio.sleep(600)
        times = here.api.times("list")[1:]
        gaps = [after - before for before, after in pairwise(times)]
        assert gaps[0] < 2
        assert 60 <= max(gaps) <= 90
        assert len(times) < 20


@virtual_time
async def test_server_that_asks_for_patience_gets_it() -> None:
    """Retry-After counts more than our own delay."""
    async with _watching() as here:
        here.api.error = ApiUnavailable("busy", retry_after=100)
        with pytest.raises(ClassesUnavailable):
            await here.source.get("shop", "vault")
        await trio.sleep(99)
        assert len(here.api.times("list")) == 1


@virtual_time
async def test_last_known_class_bridges_an_outage() -> None:
    """Secrets go on rotating while the API is away."""
    async with _watching() as here:
        await here.source.get("shop", "vault")
        await trio.sleep(1)
        here.api.error = ApiUnavailable("away")
        here.api.send.send_nowait(ApiUnavailable("lost"))
        await trio.sleep(30)
        assert await here.source.get("shop", "vault") == _class()
        with pytest.raises(ClassesUnavailable, match=r"shop/other, error: away"):
            await here.source.get("shop", "other")


@virtual_time
async def test_watch_ends_with_the_last_volume() -> None:
    """At the next sweep; the next volume begins another."""
    async with _watching() as here:
        await here.source.get("shop", "vault")
        await trio.sleep(61)
        assert here.source.watched == {"shop"}
        here.in_use.clear()
        await trio.sleep(61)
        assert here.source.watched == frozenset()
        await here.source.get("shop", "vault")
        assert here.source.watched == {"shop"}


@virtual_time
async def test_defect_in_one_watch_is_survived() -> None:
    """Logged; the namespace is listed again later."""
    async with _watching() as here:
        here.api.defect = ZeroDivisionError()
        await here.source.get("shop", "vault")
        await trio.sleep(100)
        assert len(here.api.times("list")) == 2


@virtual_time
async def test_source_that_does_not_run_asks_each_time() -> None:
    """Without rotation a change has no effect, so nothing is watched."""
    here = _Watching()
    await here.source.get("shop", "vault")
    await here.source.get("shop", "vault")
    assert [verb for verb, _ in here.api.calls] == ["get", "get"]


async def test_edit_is_told_also_after_a_watch_was_cut(tmp_path: Path) -> None:
    """The whole way: TLS, list, watch, the end of the watch, 410, list."""
    changed: list[str] = []
    with kube_api(tmp_path) as kube:
        kube.server.put_class("vault")
        source = WatchedClasses(
            kube.api, in_use=lambda: {"shop"}, on_changed=lambda *key: changed.append("/".join(key))
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.run)
            await trio.testing.wait_all_tasks_blocked()
            await source.get("shop", "vault")
            await poll_value(lambda: "watch" in kube.server.verbs(CLASSES), expected=True)
            kube.server.put_class("vault", keyvaultName="second")
            await poll_value(lambda: len(changed), 1)
            kube.server.fail("watch", CLASSES, 410, 500, None)
            kube.server.cut_watches()
            kube.server.put_class("vault", keyvaultName="third")
            await poll_value(lambda: len(changed), 2)
            assert (await source.get("shop", "vault")).parameters == {"keyvaultName": "third"}
            nursery.cancel_scope.cancel()

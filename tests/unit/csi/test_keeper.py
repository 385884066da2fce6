"""The link to the keeper, in virtual time: patience, loss, silence, take-over."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from csi.keeper import ABANDON_S, CALL_TIMEOUT_S, Keeper, KeeperLink
from fakes.keeper import FakeKeeper, FakeSession
from fakes.virtualtime import virtual_time
from fusefs.errors import KeeperUnavailable, Superseded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fakes.keeper import Moment
    from fusefs.published import PublishedVolume

TARGET = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount"


@asynccontextmanager
async def _running(link: KeeperLink) -> AsyncIterator[list[int]]:
    """Run a link; yield how many volumes each new session found."""
    found: list[int] = []

    def on_connected(_: Keeper, published: Sequence[PublishedVolume]) -> None:
        found.append(len(published))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, on_connected)
        yield found
        nursery.cancel_scope.cancel()


@virtual_time
async def test_session_waits_for_a_keeper_that_comes() -> None:
    """Somebody who needs the keeper waits a while for it."""
    keeper = FakeKeeper()
    keeper.listening = False
    link = KeeperLink(keeper.connect)
    async with _running(link) as found, trio.open_nursery() as nursery:

        async def use() -> None:
            await (await link.session()).unpublish("v", TARGET)

        nursery.start_soon(use)
        await trio.sleep(5)
        keeper.listening = True
        await trio.sleep(3)
        assert (found, keeper.calls) == ([0], ["unpublish"])


@virtual_time
async def test_session_does_not_wait_for_ever() -> None:
    """Without a keeper the caller hears so before his own deadline."""
    keeper = FakeKeeper()
    keeper.listening = False
    link = KeeperLink(keeper.connect)
    async with _running(link):
        with pytest.raises(KeeperUnavailable, match="10 s"):
            await link.session()
        assert trio.current_time() == 10
        assert not await link.answers()


@virtual_time
async def test_lost_connection_is_noticed_without_a_call() -> None:
    """A dead keeper is noticed at once, and its successor found within a second."""
    keeper = FakeKeeper()
    link = KeeperLink(keeper.connect)
    async with _running(link) as found:
        first = await link.session()
        keeper.disconnect()
        await trio.sleep(1)
        assert len(found) == 2
        assert await link.session() is not first
        with pytest.raises(KeeperUnavailable):
            await first.unpublish("v", TARGET)


@virtual_time
async def test_mounts_end_without_a_keeper_for_long() -> None:
    """What is held for a keeper is let go after two minutes, once each time, and not before."""
    keeper = FakeKeeper()
    abandoned: list[float] = []
    link = KeeperLink(
        keeper.connect, abandon=lambda: abandoned.append(trio.current_time() - lost_at)
    )
    async with _running(link):
        await link.session()
        for absent_s, expected in ((ABANDON_S - 5, []), (ABANDON_S * 3, [ABANDON_S])):
            lost_at = trio.current_time()
            keeper.listening = False
            keeper.disconnect()
            await trio.sleep(absent_s)
            assert abandoned == pytest.approx(expected)
            keeper.listening = True
            await link.session()


@virtual_time
async def test_stopped_node_server_lets_nothing_go() -> None:
    """While it does not run it can find no keeper: that time does not count."""
    keeper = FakeKeeper()
    abandoned: list[bool] = []
    link = KeeperLink(keeper.connect, abandon=lambda: abandoned.append(True))
    async with _running(link):
        await link.session()
        keeper.listening = False
        keeper.disconnect()
        await trio.sleep(1)
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(10 * ABANDON_S)
        keeper.listening = True
        await link.session()
        assert not abandoned


@virtual_time
async def test_keeper_that_returns_soon_is_found_soon() -> None:
    """Readers wait: for some seconds a keeper is looked for every few milliseconds."""
    keeper = FakeKeeper()
    link = KeeperLink(keeper.connect)
    async with _running(link):
        await link.session()
        keeper.listening = False
        keeper.disconnect()
        await trio.sleep(2)
        keeper.listening = True
        before = trio.current_time()
        await link.session()
        assert trio.current_time() - before < 0.05


@virtual_time
async def test_dismissed_session_ends_the_link() -> None:
    """A keeper that says that another node server is obeyed is believed; nothing is held on."""
    keeper = FakeKeeper()
    abandoned: list[bool] = []
    link = KeeperLink(keeper.connect, abandon=lambda: abandoned.append(True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, lambda *_: None)
        await link.session()
        keeper.dismiss()
    assert abandoned == [True]
    with pytest.raises(Superseded):
        await link.session()


@virtual_time
async def test_silent_keeper_is_given_up() -> None:
    """A call without an answer ends after its own deadline, and the session with it."""
    keeper = FakeKeeper()

    async def hang(_: str, __: Moment) -> None:
        await trio.sleep_forever()

    link = KeeperLink(keeper.connect)
    async with _running(link) as found:
        session = await link.session()
        keeper.hook = hang
        with pytest.raises(KeeperUnavailable, match="did not answer"):
            await session.unpublish("v", TARGET)
        assert trio.current_time() == CALL_TIMEOUT_S
        await trio.sleep(1)
        assert len(found) == 2


@virtual_time
async def test_cancelled_caller_still_hears_the_outcome() -> None:
    """A call that was sent is not abandoned: only its answer tells what happened."""
    keeper = FakeKeeper()

    async def be_slow(_: str, moment: Moment) -> None:
        if moment == "before":
            await trio.sleep(5)

    link = KeeperLink(keeper.connect)
    async with _running(link):
        session = await link.session()
        keeper.hook = be_slow
        answered = False
        with trio.move_on_after(1):
            await session.unpublish("v", TARGET)
            answered = True
        assert (answered, trio.current_time()) == (True, 5)


@virtual_time
async def test_superseded_link_ends_and_says_so() -> None:
    """After a take-over there will be no session again, and everybody waiting hears it."""
    keeper = FakeKeeper()
    link = KeeperLink(keeper.connect)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, lambda *_: None)
        session = await link.session()
        async with keeper.connect():
            with pytest.raises(Superseded):
                await session.unpublish("v", TARGET)
    with pytest.raises(Superseded):
        await link.session()
    with pytest.raises(Superseded):
        await session.unpublish("v", TARGET)
    assert not link.connected
    assert not await link.answers()


@virtual_time
async def test_newest_link_is_not_superseded_for_good() -> None:
    """An older node server that came to a new keeper last is obeyed for a moment, not for ever."""
    keeper = FakeKeeper()
    link = KeeperLink(keeper.connect)
    newest = True
    link.is_newest = lambda: newest
    async with _running(link) as found:
        before = await link.session()
        keeper.dismiss()
        await trio.sleep(1)
        assert await link.session() is not before
        assert len(found) == 2
        newest = False
        keeper.dismiss()
        await trio.sleep(1)
        with pytest.raises(Superseded):
            await link.session()


@pytest.mark.parametrize("error", [KeeperUnavailable("lost"), Superseded("newer")])
@virtual_time
async def test_errors_in_groups_are_understood(error: Exception) -> None:
    """A client with tasks of its own raises groups; a refused registration comes as one."""
    keeper = FakeKeeper()
    attempts: list[float] = []

    @asynccontextmanager
    async def connect() -> AsyncIterator[FakeSession]:
        attempts.append(trio.current_time())
        if len(attempts) == 1:
            message = "while connecting"
            raise ExceptionGroup(message, [error])
        async with keeper.connect() as session:
            yield session

    link = KeeperLink(connect)
    async with _running(link):
        if isinstance(error, Superseded):
            with pytest.raises(Superseded):
                await link.session()
        else:
            await link.session()
            assert len(attempts) == 2

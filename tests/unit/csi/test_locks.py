"""Locks per volume: exclusive, gone when unused, seizable."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from csi.locks import VolumeLocks
from csi.records import VolumeId
from fakes.virtualtime import virtual_time

A, B = VolumeId("a"), VolumeId("b")


@virtual_time
async def test_one_at_a_time_for_each_volume() -> None:
    """Holders of one volume follow each other; another volume is free."""
    locks, order = VolumeLocks(), []

    async def hold(name: str, volume: VolumeId) -> None:
        async with locks.hold(volume):
            order.append(f"{name} in")
            await trio.sleep(1)
            order.append(f"{name} out")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, "first", A)
        await wait_all_tasks_blocked()
        nursery.start_soon(hold, "second", A)
        nursery.start_soon(hold, "other", B)
    assert order.index("first out") < order.index("second in")
    assert order.index("other in") < order.index("first out")


@virtual_time
async def test_lock_is_busy_while_held_or_awaited() -> None:
    """A lock exists as long as somebody uses it, also after a cancelled wait."""
    locks = VolumeLocks()

    async def give_up() -> None:
        with trio.move_on_after(1):
            async with locks.hold(A):
                raise AssertionError

    async with trio.open_nursery() as nursery, locks.hold(A):
        nursery.start_soon(give_up)
        await trio.sleep(2)
        assert locks.busy(A)
    assert not locks.busy(A)


@virtual_time
async def test_seizing_ends_an_interruptible_holder() -> None:
    """Whoever seizes a lock does not wait for what may be interrupted."""
    locks = VolumeLocks()
    ended: list[str] = []

    async def refresh() -> None:
        async with locks.hold_interruptibly(A):
            await trio.sleep_forever()
        ended.append("quietly")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refresh)
        await wait_all_tasks_blocked()
        async with locks.seize(A):
            await trio.lowlevel.checkpoint()
    assert ended == ["quietly"]
    assert not locks.busy(A)


@virtual_time
async def test_seizing_waits_for_other_holders() -> None:
    """A holder that must not be interrupted is waited for."""
    locks = VolumeLocks()
    async with trio.open_nursery() as nursery:

        async def publish() -> None:
            async with locks.hold(A):
                await trio.sleep(5)

        nursery.start_soon(publish)
        await wait_all_tasks_blocked()
        async with locks.seize(A):
            assert trio.current_time() == 5


@virtual_time
async def test_interruptible_end_does_not_reach_the_next() -> None:
    """A holder that came after the seizure is not cancelled by it."""
    locks, done = VolumeLocks(), []

    async def refresh(name: str) -> None:
        async with locks.hold_interruptibly(A):
            await trio.sleep(1)
            done.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refresh, "first")
        await wait_all_tasks_blocked()
        nursery.start_soon(refresh, "second")
        await wait_all_tasks_blocked()
        async with locks.seize(A):
            pass
    assert done == ["second"]

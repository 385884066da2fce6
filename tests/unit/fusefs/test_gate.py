"""What is let through to pyfuse3, when, and what is noted down: sockets stand for the kernel."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

import pyfuse3
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fakes.virtualtime import virtual_time
from fusefs import initmsg
from fusefs.gate import Gate, JournaledGate
from fusefs.pace import Pace
from fusefs.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fusefs.journal import Journal

GETATTR, FORGET, INTERRUPT, BATCH_FORGET = 3, 2, 36, 42
FAST = 1_000_000


def request(unique: int, opcode: int = GETATTR, body: bytes = b"body") -> bytes:
    """Return a request as the kernel sends it."""
    length = initmsg.IN_HEADER.size + len(body)
    return initmsg.IN_HEADER.pack(length, opcode, unique, 1, 0, 0, 0, 0, 0) + body


def reply(unique: int) -> bytes:
    """Return a reply as libfuse sends it."""
    return struct.pack("=IiQ", 16, 0, unique)


class Volume:
    """A device, libfuse, and the page: what a worker stands between, and outlives it."""

    def __init__(self) -> None:
        self.page = Usage.create()
        self.usage = Usage(self.page)
        self.journals: list[Journal] = []
        self.answered = 0
        self.kernel, self.device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.libfuse, self.relay = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.settimeout(0)
        self.libfuse.settimeout(0)

    def worker(self, number: int) -> JournaledGate:
        """Return a worker's gate; the one before it may have died at any moment."""
        self.libfuse.close()
        self.relay.close()
        self.libfuse, self.relay = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.libfuse.settimeout(0)
        self.journals.append(self.usage.journal(number))
        return JournaledGate(
            self.device.fileno(),
            Pace(FAST),
            self.count,
            relay=self.relay,
            journal=self.journals[-1],
        )

    def count(self) -> None:
        """Note that all that was let through has been answered."""
        self.answered += 1

    def answers(self) -> list[bytes]:
        """Return what the kernel has been told."""
        found = []
        while True:
            try:
                found.append(self.kernel.recv(1000))
            except BlockingIOError:
                return found

    def close(self) -> None:
        """Let go of everything."""
        for one in self.journals:
            one.close()
        for end in (self.kernel, self.device, self.libfuse, self.relay):
            end.close()
        self.usage.close()
        os.close(self.page)


@pytest.fixture
def volume() -> Iterator[Volume]:
    """Return a volume that nobody serves."""
    made = Volume()
    yield made
    made.close()


async def pending(gate: Gate) -> bool:
    """Return whether the gate lets a request through now."""
    with trio.move_on_after(0.05) as waited:
        await gate.wait_readable(-1)
    return not waited.cancelled_caught


async def test_request_and_reply_are_passed_on(volume: Volume) -> None:
    """Libfuse gets the request whole; the kernel gets the reply when the next one is asked for."""
    gate = volume.worker(0)
    volume.kernel.send(request(2))
    await gate.wait_readable(-1)
    assert volume.libfuse.recv(1000) == request(2)
    volume.libfuse.send(reply(2))
    assert volume.answers() == []
    assert not await pending(gate)
    assert volume.answers() == [reply(2)]


@pytest.mark.parametrize("journaled", [False, True])
async def test_answered_requests_are_told_of(volume: Volume, *, journaled: bool) -> None:
    """What waits for the answer is done before another request comes: a worker may die idle."""
    gate: Gate = volume.worker(0)
    if not journaled:
        gate = Gate(volume.device.fileno(), Pace(FAST), volume.count)
    volume.kernel.send(request(2))
    assert await pending(gate)
    before = volume.answered
    if journaled:
        volume.libfuse.send(reply(2))
    else:
        volume.device.recv(1000)
    assert not await pending(gate)
    assert volume.answered == before + 1


async def test_interrupts_get_an_answer_of_their_own(volume: Volume) -> None:
    """Libfuse may answer two at once; both reach the kernel."""
    gate = volume.worker(0)
    volume.kernel.send(request(2))
    await gate.wait_readable(-1)
    volume.libfuse.send(reply(1))
    volume.libfuse.send(reply(2))
    await pending(gate)
    assert volume.answers() == [reply(1), reply(2)]


async def test_request_in_work_has_a_successor(volume: Volume) -> None:
    """A worker that dies over a request leaves it to the next, before any newer one."""
    gate = volume.worker(0)
    volume.kernel.send(request(2))
    await gate.wait_readable(-1)
    volume.kernel.send(request(4))
    successor = volume.worker(1)
    successor.recover()
    await successor.wait_readable(-1)
    assert volume.libfuse.recv(1000) == request(2)
    volume.libfuse.send(reply(2))
    await successor.wait_readable(-1)
    assert volume.libfuse.recv(1000) == request(4)
    assert volume.answers() == [reply(2)]


async def test_stopped_worker_leaves_what_it_did_not_come_to(volume: Volume) -> None:
    """A worker that makes room before it has answered for a dead one has lost nothing either."""
    gate = volume.worker(0)
    volume.kernel.send(request(2))
    await gate.wait_readable(-1)
    second = volume.worker(1)
    second.recover()
    second.close()
    assert await is_closed(second)
    third = volume.worker(0)  # of another keeper, which is told that nothing is left to recover
    volume.kernel.send(request(4))
    await third.wait_readable(-1)
    assert volume.libfuse.recv(1000) == request(2)


async def test_answered_requests_are_not_repeated(volume: Volume) -> None:
    """What the kernel got an answer to is no business of the successor."""
    gate = volume.worker(0)
    volume.kernel.send(request(2))
    await gate.wait_readable(-1)
    volume.libfuse.send(reply(2))
    await pending(gate)
    successor = volume.worker(1)
    successor.recover()
    assert not await pending(successor)


@pytest.mark.parametrize("opcode", [FORGET, INTERRUPT, BATCH_FORGET])
async def test_what_gets_no_answer_is_not_repeated(volume: Volume, opcode: int) -> None:
    """Counting a forget twice would let go of what is in use."""
    gate = volume.worker(0)
    volume.kernel.send(request(2, opcode))
    await gate.wait_readable(-1)
    successor = volume.worker(1)
    successor.recover()
    assert not await pending(successor)
    assert volume.answers() == []


@pytest.mark.parametrize("length", [1, initmsg.IN_HEADER.size - 1])
async def test_garbage_in_a_journal_is_dropped(volume: Volume, length: int) -> None:
    """A worker that was broken into wrote it; its successors must live."""
    gate = volume.worker(0)
    volume.journals[0].own[:4] = struct.pack("=I", length)
    volume.kernel.send(request(2))
    await gate.wait_readable(-1)
    assert volume.libfuse.recv(1000) == request(2)


async def test_long_request_is_passed_on_and_lost(volume: Volume) -> None:
    """What no slot can hold reaches libfuse whole; after a death its caller may try again."""
    gate = volume.worker(0)
    long = request(2, body=b"x" * 10_000)
    volume.kernel.send(long)
    await gate.wait_readable(-1)
    assert volume.libfuse.recv(20_000) == long
    successor = volume.worker(1)
    successor.recover()
    assert not await pending(successor)
    assert volume.answers() == [initmsg.error(2, errno.EINTR)]


async def soon(action: Callable[[], None]) -> None:
    """Do something once everybody else waits."""
    await wait_all_tasks_blocked()
    action()


async def test_late_end_of_a_worker_is_recovered(volume: Volume) -> None:
    """What a worker took that could not be killed is answered once it is gone."""
    volume.worker(0)
    successor = volume.worker(1)

    def late_end() -> None:
        volume.journals[0].own[: len(request(8))] = request(8)
        successor.recover()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(soon, late_end)
            await successor.wait_readable(-1)
    assert volume.libfuse.recv(1000) == request(8)


async def is_closed(gate: Gate) -> bool:
    """Return whether the gate says that nothing comes through any more."""
    try:
        await gate.wait_readable(-1)
    except trio.ClosedResourceError:
        return True
    return False


@pytest.mark.parametrize("journaled", [False, True])
async def test_closed_gate_lets_nothing_through(volume: Volume, *, journaled: bool) -> None:
    """Whoever waits is told, and what has not been taken stays with the kernel."""
    gate: Gate = volume.worker(0)
    if not journaled:
        gate = Gate(volume.device.fileno(), Pace(FAST))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(soon, gate.close)
            assert await is_closed(gate)
    volume.kernel.send(request(2))
    assert await is_closed(gate)
    successor = volume.worker(1)
    await successor.wait_readable(-1)
    assert volume.libfuse.recv(1000) == request(2)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOENT, errno.EINTR])
async def test_request_may_be_gone_again(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Another reader took it, or whoever asked was killed: the next one is waited for."""
    errors = [OSError(number, "gone")]
    readv = os.readv

    def read(device: int, buffers: list[bytearray]) -> int:
        if errors:
            raise errors.pop()
        return readv(device, buffers)

    monkeypatch.setattr(os, "readv", read)
    gate = volume.worker(0)
    volume.kernel.send(request(2))
    assert await pending(gate)
    assert not errors


async def test_aborted_connection_closes_the_gate(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left to serve; any other error is a defect and is raised."""
    gate = volume.worker(0)
    volume.kernel.send(request(2))

    def fail(number: int) -> None:
        def read(_: int, __: list[bytearray]) -> int:
            raise OSError(number, "failed")

        monkeypatch.setattr(os, "readv", read)

    fail(errno.EIO)
    with pytest.raises(OSError, match="failed"):
        await gate.wait_readable(-1)
    fail(errno.ENODEV)
    assert await is_closed(gate)


async def test_direct_gate_waits_for_the_device(volume: Volume) -> None:
    """Without a journal the session reads the device itself, when it is its turn."""
    gate = Gate(volume.device.fileno(), Pace(FAST))
    assert not await pending(gate)
    volume.kernel.send(request(2))
    assert await pending(gate)


@virtual_time
async def test_flood_has_to_wait(volume: Volume) -> None:
    """A volume that asks for too much is slowed down; nothing is taken meanwhile."""
    volume.kernel.send(request(2))
    gate = Gate(volume.device.fileno(), Pace(10))
    began = trio.current_time()
    for _ in range(21):
        await gate.wait_readable(-1)
    assert 2.0 <= trio.current_time() - began <= 2.2


def test_pyfuse3_asks_at_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate stands in for what pyfuse3 calls trio, and for nothing else of it."""
    monkeypatch.setattr(pyfuse3, "trio", trio)

    async def opened() -> Gate:
        gate = Gate(-1, Pace(FAST))
        gate.open()
        return gate

    gate = trio.run(opened)
    assert pyfuse3.trio.lowlevel.wait_readable == gate.wait_readable  # type: ignore[attr-defined]
    assert pyfuse3.trio.open_nursery is trio.open_nursery  # type: ignore[attr-defined]


def test_invalidation_says_who_is_known(monkeypatch: pytest.MonkeyPatch, volume: Volume) -> None:
    """The kernel refuses to forget what it does not know."""
    gate = Gate(volume.device.fileno(), Pace(FAST, clock=lambda: 0.0))
    assert gate.invalidate(5)
    assert volume.answers() == [initmsg.invalidate_attributes(5)]

    def refuse(_: int, __: bytes) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "write", refuse)
    assert not gate.invalidate(5)

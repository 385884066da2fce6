"""Control messages over a socket pair: what arrives, what is refused, what stays open: nothing."""

from __future__ import annotations

import array
import os
import socket
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs import packets, protocol
from fusefs.errors import InvalidMessage
from fusefs.memory import sealed_memfd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
NODE_MESSAGES: st.SearchStrategy[protocol.NodeMessage] = st.one_of(
    st.builds(protocol.Register, st.integers(0, 2**40)),
    st.builds(
        protocol.Publish,
        st.integers(0, 9),
        TEXTS,
        TEXTS,
        st.integers(1, 9),
        st.binary(),
        st.binary(),
    ),
    st.builds(
        protocol.Rotate, st.integers(0, 9), TEXTS, st.integers(1, 9), st.binary(), st.binary()
    ),
    st.builds(protocol.UpdateRecord, st.integers(0, 9), TEXTS, st.binary()),
    st.builds(protocol.Unpublish, st.integers(0, 9), TEXTS, TEXTS),
    st.builds(protocol.ListVolumes, st.integers(0, 9)),
)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends of a control socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(5)
        theirs.settimeout(5)
        yield ours, theirs


def send_raw(connection: socket.socket, packet: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send a packet that the protocol's own function would not."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    connection.sendmsg([packet], [rights] if descriptors else [])


@given(message=NODE_MESSAGES)
def test_messages_arrive_as_they_were_sent(message: protocol.NodeMessage) -> None:
    """Every request of a node server survives the way."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        packets.send(ours, message)
        assert packets.receive(theirs, protocol.AT_KEEPER) == (message, [])


@pytest.mark.parametrize("count", range(packets.MAX_DESCRIPTORS + 1))
@pytest.mark.parametrize("size", [0, packets.INLINE_BYTES], ids=["inline", "memory-file"])
def test_descriptors_travel_in_their_order(
    ends: tuple[socket.socket, socket.socket], count: int, size: int
) -> None:
    """The receiver gets each descriptor, close-on-exec, and none of the protocol's own."""
    files = [sealed_memfd("test", [b"%d" % number]) for number in range(count)]
    message = protocol.UpdateRecord(1, "v", b"r" * size)
    packets.send(ends[0], message, files)
    for fd in files:
        os.close(fd)
    received = packets.receive(ends[1], protocol.AT_KEEPER)
    assert received is not None
    assert received[0] == message
    assert [os.pread(fd, 9, 0) for fd in received[1]] == [b"%d" % one for one in range(count)]
    assert not [fd for fd in received[1] if os.get_inheritable(fd)]
    for fd in received[1]:
        os.close(fd)


@pytest.mark.parametrize(
    "size", [packets.INLINE_BYTES - 100, packets.INLINE_BYTES + 1, 1 << 20, 15 << 20]
)
def test_bodies_of_any_size_arrive(ends: tuple[socket.socket, socket.socket], size: int) -> None:
    """What does not fit a packet travels in a memory file, and nobody sees the difference."""
    message = protocol.UpdateRecord(1, "v", os.urandom(1) * size)
    packets.send(ends[0], message)
    assert packets.receive(ends[1], protocol.AT_KEEPER) == (message, [])


def test_body_over_the_limit_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    """A receiver takes no more than it said it would."""
    packets.send(ends[0], protocol.Ready(b"r" * (packets.INLINE_BYTES + 1)))
    with pytest.raises(InvalidMessage, match="allowed are 1 to 1000"):
        packets.receive(ends[1], protocol.FROM_WORKER, max_body=1000)


def test_end_of_the_sender_is_no_message(ends: tuple[socket.socket, socket.socket]) -> None:
    """A closed connection reads as None, after what had been sent."""
    packets.send(ends[0], protocol.Register(1))
    ends[0].close()
    assert packets.receive(ends[1], protocol.AT_KEEPER) == (protocol.Register(1), [])
    assert packets.receive(ends[1], protocol.AT_KEEPER) is None


def test_last_words_of_the_dead_are_heard(ends: tuple[socket.socket, socket.socket]) -> None:
    """A sender that dies without having read everything had still said what it had said."""
    packets.send(ends[1], protocol.UpdateRecord(1, "v", b""))
    packets.send(ends[0], protocol.Register(1))
    packets.send(ends[0], protocol.Register(2))
    ends[0].close()
    assert packets.receive(ends[1], protocol.AT_KEEPER) == (protocol.Register(1), [])
    assert packets.receive(ends[1], protocol.AT_KEEPER) == (protocol.Register(2), [])
    assert packets.receive(ends[1], protocol.AT_KEEPER) is None


def test_nothing_to_receive_does_not_block(ends: tuple[socket.socket, socket.socket]) -> None:
    """A socket that does not block says that nothing is there."""
    ends[1].settimeout(0)
    with pytest.raises(BlockingIOError):
        packets.receive(ends[1], protocol.AT_KEEPER)


def test_gone_receiver_is_an_error(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Neither a signal nor a silent loss: the sender hears of it."""
    ends[1].close()
    for size in (0, packets.INLINE_BYTES):
        with pytest.raises(ConnectionError):
            packets.send(ends[0], protocol.UpdateRecord(1, "v", b"r" * size))


def test_full_queue_does_not_block(ends: tuple[socket.socket, socket.socket]) -> None:
    """A receiver that does not read cannot hold up the sender, nor leave a memory file behind."""
    ends[0].settimeout(0)
    large = protocol.UpdateRecord(1, "v", b"r" * packets.INLINE_BYTES)

    def fill() -> None:
        for _ in range(100_000):
            packets.send(ends[0], large)

    with pytest.raises(BlockingIOError):
        fill()


GARBAGE = {
    "no-body": b"x",
    "empty-inline": b"i",
    "no-msgpack": b"i\xc1",
    "unknown-message": b"i" + msgspec.msgpack.encode(["Shutdown", 1]),
    "other-direction": b"i" + msgspec.msgpack.encode(protocol.Done(1)),
    "missing-field": b"i" + msgspec.msgpack.encode(["Register"]),
    "wrong-type": b"i" + msgspec.msgpack.encode(["Register", "1"]),
    "no-utf-8": b"i"
    + msgspec.msgpack.encode(["Unpublish", 1, "ab", "t"]).replace(b"ab", b"\xff\xff"),
    "deeply-nested": b"i" + b"\x91" * 20_000 + b"\x01",
    "cut-short": b"i" + msgspec.msgpack.encode(protocol.Register(1))[:-1],
    "trailing-bytes": b"i" + msgspec.msgpack.encode(protocol.Register(1)) + b"\x01",
    "memory-file-missing": b"m",
    "memory-file-and-body": b"mm",
}


@pytest.mark.parametrize("packet", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("count", [0, 2])
def test_garbage_is_refused_and_closed(
    ends: tuple[socket.socket, socket.socket], packet: bytes, count: int
) -> None:
    """Whatever is no message is one kind of error, and its descriptors are closed (conftest)."""
    files = [sealed_memfd("test", [b"\xc1"]) for _ in range(count)]
    send_raw(ends[0], packet, files)
    for fd in files:
        os.close(fd)
    with pytest.raises(InvalidMessage, match="packet"):
        packets.receive(ends[1], protocol.AT_KEEPER)
    packets.send(ends[0], protocol.Register(2))
    assert packets.receive(ends[1], protocol.AT_KEEPER) == (protocol.Register(2), [])


@given(body=st.binary(max_size=40))
def test_random_bytes_never_raise_anything_else(body: bytes) -> None:
    """No packet can make the receiver fail in a way that it does not expect."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send_raw(ours, b"i" + body)
        try:
            packets.receive(theirs, protocol.AT_KEEPER)
        except InvalidMessage:
            return


def test_packet_that_was_cut_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    """A packet larger than any of the protocol's is not taken for its beginning."""
    body = msgspec.msgpack.encode(protocol.UpdateRecord(1, "v", b"r" * packets.INLINE_BYTES))
    fd = sealed_memfd("test", [b"x"])
    send_raw(ends[0], b"i" + body, [fd])
    os.close(fd)
    with pytest.raises(InvalidMessage, match="cut short"):
        packets.receive(ends[1], protocol.AT_KEEPER)


def test_too_many_descriptors_are_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    """Descriptors that the kernel had to drop make the message incomplete."""
    files = [sealed_memfd("test", [b"x"]) for _ in range(20)]
    send_raw(ends[0], b"i" + msgspec.msgpack.encode(protocol.Register(1)), files)
    for fd in files:
        os.close(fd)
    with pytest.raises(InvalidMessage, match="cut short"):
        packets.receive(ends[1], protocol.AT_KEEPER)


def test_body_in_an_unsealed_file_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    """A body that its sender could change while it is read is no body."""
    unsealed = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(unsealed, msgspec.msgpack.encode(protocol.Register(1)))
    send_raw(ends[0], b"m", [unsealed])
    os.close(unsealed)
    with pytest.raises(InvalidMessage):
        packets.receive(ends[1], protocol.AT_KEEPER)


def test_plain_messages_are_no_secret_store() -> None:
    """A message that could hold content is never printed by the protocol's own errors."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send_raw(ours, b"i" + msgspec.msgpack.encode(["Rotate", 1, "v", "canary", b"", b"canary"]))
        with pytest.raises(InvalidMessage) as caught:
            packets.receive(theirs, protocol.AT_KEEPER)
    assert "canary" not in str(caught.value)

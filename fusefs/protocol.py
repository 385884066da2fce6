"""Control messages: node server and keeper, keeper and worker.

One message is one packet of a SEQPACKET socket: a byte that says where the body is, the body
(msgpack), and the descriptors that belong to it. A body too large for a packet travels in a sealed
memory file, which is then the last descriptor.
"""

import array
import os
import socket
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from fusefs.errors import InvalidMessage, InvalidSnapshot
from fusefs.memory import check_sealed, sealed_memfd

INLINE_BYTES: Final = 32 << 10  # well below the smallest default of net.core.wmem_max
MAX_BODY_BYTES: Final = 16 << 20
MAX_DESCRIPTORS: Final = 4
_INLINE, _IN_MEMORY_FILE = b"i", b"m"


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages."""


# Node server to keeper. `request` is echoed in every answer.


class Register(Message, frozen=True):
    """Become the node session that is obeyed; the session before is obeyed no longer."""

    request: int


class Publish(Message, frozen=True):
    """Mount a volume. Descriptor: the snapshot."""

    request: int
    volume_id: str
    target: str
    generation: int
    plan: bytes
    record: bytes


class Rotate(Message, frozen=True):
    """Bring a new generation into a published volume. Descriptor: the snapshot."""

    request: int
    volume_id: str
    generation: int
    plan: bytes
    record: bytes


class UpdateRecord(Message, frozen=True):
    """Replace the record of a published volume."""

    request: int
    volume_id: str
    record: bytes


class Unpublish(Message, frozen=True):
    """Take a volume away. An unknown one is fine; the target is cleaned up all the same."""

    request: int
    volume_id: str
    target: str


class ListVolumes(Message, frozen=True):
    """Ask for every volume. Needs no registration."""

    request: int


class FetchSnapshot(Message, frozen=True):
    """Ask for the newest snapshot of a volume. Needs no registration."""

    request: int
    volume_id: str


NodeMessage = Register | Publish | Rotate | UpdateRecord | Unpublish | ListVolumes | FetchSnapshot


# Keeper to node server


class Done(Message, frozen=True):
    """The request was carried out; for a rotation: every new open sees the generation."""

    request: int


class Refused(Message, frozen=True):
    """The request was not carried out and left nothing behind. `error` names a `KeeperError`."""

    request: int
    error: str
    text: str
    layout: bool = False


class VolumeState(Message, frozen=True):
    """One volume, as part of `Volumes`."""

    volume_id: str
    target: str
    generation: int
    record: bytes
    worker_pid: int | None


class Volumes(Message, frozen=True):
    """Every volume that is shown at its target."""

    request: int
    volumes: tuple[VolumeState, ...]


class SnapshotOf(Message, frozen=True):
    """A volume's newest generation. Descriptor: its snapshot."""

    request: int
    generation: int


KeeperMessage = Done | Refused | Volumes | SnapshotOf


# Keeper to worker


class Swap(Message, frozen=True):
    """Make a new generation the current one. Descriptor: its snapshot."""

    generation: int
    plan: bytes


class Finish(Message, frozen=True):
    """The plan in progress has been carried out."""


class Primed(Message, frozen=True):
    """The mount has been primed; the priming file must not be found any longer."""


class Drop(Message, frozen=True):
    """Let go of generations: those that nobody uses or, when forced, all of them."""

    generations: tuple[int, ...]
    forced: bool


ToWorker = Swap | Finish | Primed | Drop


# Worker to keeper


class Ready(Message, frozen=True):
    """The worker answers the kernel. `reply` is its reply to INIT."""

    reply: bytes


class PrimingEnded(Message, frozen=True):
    """The priming file can be found no longer."""


class Swapped(Message, frozen=True):
    """Every new open on the live view sees this generation."""

    generation: int


class Dropped(Message, frozen=True):
    """These generations are no longer kept."""

    generations: tuple[int, ...]


class Rejected(Message, frozen=True):
    """A generation cannot be served: its snapshot or plan is not what it should be."""

    generation: int
    text: str


FromWorker = Ready | PrimingEnded | Swapped | Dropped | Rejected

# What each end may be sent, ready to decode.
AT_KEEPER: Final = msgspec.msgpack.Decoder[NodeMessage](NodeMessage)
AT_NODE: Final = msgspec.msgpack.Decoder[KeeperMessage](KeeperMessage)
AT_WORKER: Final = msgspec.msgpack.Decoder[ToWorker](ToWorker)
FROM_WORKER: Final = msgspec.msgpack.Decoder[FromWorker](FromWorker)

T = TypeVar("T")


def send(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message in one system call.

    Raises:
        BlockingIOError: The receiver's queue is full and the socket does not block.
        ConnectionError: The receiver is gone.
    """
    body = msgspec.msgpack.encode(message)
    if len(body) <= INLINE_BYTES:
        _send(connection, _INLINE + body, descriptors)
        return
    memory_file = sealed_memfd("akvfs-message", [body])
    try:
        _send(connection, _IN_MEMORY_FILE, [*descriptors, memory_file])
    finally:
        os.close(memory_file)


def _send(connection: socket.socket, packet: bytes, descriptors: Sequence[int]) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    connection.sendmsg([packet], [rights] if descriptors else [], socket.MSG_NOSIGNAL)


def receive(
    connection: socket.socket,
    messages: msgspec.msgpack.Decoder[T],
    *,
    max_body: int = MAX_BODY_BYTES,
) -> tuple[T, list[int]] | None:
    """Receive one message out of `messages`; None when the sender is gone.

    Returns:
        The message and its descriptors, which belong to the caller from now on.

    Raises:
        BlockingIOError: Nothing is there and the socket does not block.
        InvalidMessage: The packet is no such message; its descriptors were closed.
    """
    size = socket.CMSG_SPACE((MAX_DESCRIPTORS + 1) * array.array("i").itemsize)
    packet, ancillary, flags, _ = connection.recvmsg(
        INLINE_BYTES + 2, size, socket.MSG_CMSG_CLOEXEC
    )
    descriptors = _descriptors(ancillary)
    if not packet and not descriptors:
        return None
    try:
        _check_whole(flags)
        return messages.decode(_body(packet, descriptors, max_body)), descriptors
    except (msgspec.DecodeError, InvalidSnapshot, ValueError, RecursionError) as error:
        _close(descriptors)
        message = f"the packet is no message of this protocol: {error}"
        raise InvalidMessage(message) from error
    except BaseException:
        _close(descriptors)
        raise


def _check_whole(flags: int) -> None:
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        message = "the packet was cut short"
        raise InvalidMessage(message)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def _body(packet: bytes, descriptors: list[int], max_body: int) -> bytes:
    if packet[:1] == _INLINE:
        return packet[1:]
    if packet != _IN_MEMORY_FILE or not descriptors:
        message = "the packet has no body"
        raise InvalidMessage(message)
    memory_file = descriptors.pop()
    try:
        return os.pread(memory_file, check_sealed(memory_file, max_bytes=max_body), 0)
    finally:
        os.close(memory_file)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

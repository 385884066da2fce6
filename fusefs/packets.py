"""Packets of a SEQPACKET socket: one message each, with the descriptors that belong to it.

A packet is a byte that says where the body is, the body (msgpack), and the descriptors. A body too
large for a packet travels in a sealed memory file, which is then the last descriptor.
"""

import array
import contextlib
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

T = TypeVar("T")


def send(
    connection: socket.socket, message: msgspec.Struct, descriptors: Sequence[int] = ()
) -> None:
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
    packet, ancillary, flags = _receive_packet(connection)
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


def _receive_packet(connection: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
    size = socket.CMSG_SPACE((MAX_DESCRIPTORS + 1) * array.array("i").itemsize)
    with contextlib.suppress(ConnectionResetError):
        return connection.recvmsg(INLINE_BYTES + 2, size, socket.MSG_CMSG_CLOEXEC)[:3]
    # The sender died and had not read everything; the kernel says so once, ahead of what it sent.
    return connection.recvmsg(INLINE_BYTES + 2, size, socket.MSG_CMSG_CLOEXEC)[:3]


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

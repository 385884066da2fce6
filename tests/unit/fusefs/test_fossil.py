"""Requests of a volume that is being frozen, byte by byte."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest
import trio

from fakes.volumes import FakeVolume, volume_of
from fusefs import fossil
from fusefs.fossil import Fossil
from fusefs.gate import Gate
from fusefs.nodeids import ROOT_NODE, Handle, joined
from fusefs.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = {"user": b"u" * 5000, "nest/deep/key": b"k"}
OPEN, OPENDIR, SETATTR = 14, 27, 4


@pytest.fixture
def volume() -> Iterator[FakeVolume]:
    """Provide a volume after one rotation."""
    with volume_of(FILES) as found:
        found.rotate({**FILES, "user": b"new"})
        yield found


def request(opcode: int, node: int, body: bytes = b"", *, unique: int = 8) -> bytes:
    """Return a request as the kernel sends it."""
    header = struct.pack("=IIQQIIIHH", 40 + len(body), opcode, unique, node, 0, 0, 1, 0, 0)
    return header + body


def ask(volume: FakeVolume, opcode: int, node: int, body: bytes = b"") -> bytes:
    """Return the payload of the answer.

    Raises:
        OSError: The answer is an error.
    """
    reply = Fossil(volume.table).answer(request(opcode, node, body))
    assert reply is not None
    length, error, unique = struct.unpack_from("=IiQ", reply)
    assert (length, unique) == (len(reply), 8)
    if error:
        raise OSError(-error, "")
    return reply[16:]


def read_in(handle: int, offset: int = 0, size: int = 4096) -> bytes:
    """Return the body of READ and READDIR."""
    return struct.pack("=2QI20x", handle, offset, size)


def names(payload: bytes, *, skip: int = 0) -> list[str]:
    """Return the names in the answer to READDIR; each comes `skip` bytes after its start."""
    found, at = [], 0
    while at < len(payload):
        (length,) = struct.unpack_from("=I", payload, at + skip + 16)
        start = at + skip + 24
        found.append(payload[start : start + length].decode())
        at = start + length + -(24 + length) % 8
    return found


@pytest.mark.parametrize("opcode", [OPEN, OPENDIR, 22, 23, 25, 46])
def test_handles_are_given_out_no_more(volume: FakeVolume, opcode: int) -> None:
    """What the kernel can do by itself is answered so that it never asks again."""
    with pytest.raises(OSError, match=str(errno.ENOSYS)):
        ask(volume, opcode, ROOT_NODE)


def test_changes_are_refused(volume: FakeVolume) -> None:
    """A request that would change the volume gets EROFS, as ever."""
    with pytest.raises(OSError, match=str(errno.EROFS)):
        ask(volume, SETATTR, ROOT_NODE)


def test_names_lead_to_lasting_attributes(volume: FakeVolume) -> None:
    """A look-up says node, size and mode, and that they hold for long."""
    payload = ask(volume, fossil.LOOKUP, ROOT_NODE, b"user\0")
    node, _, entry_valid, attr_valid = struct.unpack_from("=4Q", payload)
    assert node == volume.node("user")
    assert entry_valid == attr_valid == fossil.CACHED_S
    assert payload[40:] == ask(volume, fossil.GETATTR, node)[16:]
    number, size = struct.unpack_from("=2Q", payload, 40)
    mode, links = struct.unpack_from("=2I", payload, 40 + 60)
    assert (number, size, mode, links) == (node, 3, 0o100644, 1)
    assert len(payload) == 128


@pytest.mark.parametrize("name", [b"nobody\0", b".\0", b"..\0"])
def test_missing_name_is_named_so(volume: FakeVolume, name: bytes) -> None:
    """A name that is not there is ENOENT, and so are the two that the kernel resolves itself."""
    with pytest.raises(OSError, match=str(errno.ENOENT)):
        ask(volume, fossil.LOOKUP, ROOT_NODE, name)


def test_link_names_its_generation(volume: FakeVolume) -> None:
    """The data link points where it did."""
    assert ask(volume, fossil.READLINK, volume.node("..data")) == b"..2"


def test_read_without_handle_goes_by_node(volume: FakeVolume) -> None:
    """Without a handle a live file shows what is current, a generation its own."""
    assert ask(volume, fossil.READ, volume.node("user"), read_in(0)) == b"new"
    old = joined(1, volume.node("user"))
    assert ask(volume, fossil.READ, old, read_in(0, 4990)) == b"u" * 10


def test_read_with_handle_keeps_its_version(volume: FakeVolume) -> None:
    """Who has the file open goes on reading what it was."""
    node = volume.node("user")
    handle = Handle(generation=1, local=node).pack()
    assert ask(volume, fossil.READ, node, read_in(handle, 0, 5)) == b"uuuuu"


@pytest.mark.parametrize(
    ("path", "expected"),
    [("", ["..data", "..2", "nest", "user"]), ("nest", ["deep"]), ("..data", [])],
)
def test_listing_goes_by_node(volume: FakeVolume, path: str, expected: list[str]) -> None:
    """A listing without a handle is of the directory that is asked for, in both forms."""
    node = volume.node(path) if path else ROOT_NODE
    if path == "..data":
        node, expected = joined(2, ROOT_NODE), ["nest", "user"]
    assert names(ask(volume, fossil.READDIR, node, read_in(0))) == expected
    plus = ask(volume, fossil.READDIRPLUS, node, read_in(0))
    assert names(plus, skip=128) == expected


def test_listing_goes_on_where_it_stopped(volume: FakeVolume) -> None:
    """A small buffer takes whole entries; the next request begins after them."""
    first = names(ask(volume, fossil.READDIR, ROOT_NODE, read_in(0, 0, 70)))
    rest = names(ask(volume, fossil.READDIR, ROOT_NODE, read_in(0, len(first))))
    assert (first, rest) == (["..data", "..2"], ["nest", "user"])
    assert ask(volume, fossil.READDIR, ROOT_NODE, read_in(0, 4)) == b""


def test_old_listing_keeps_its_version(volume: FakeVolume) -> None:
    """A directory that was open before is listed as it was."""
    handle = Handle(generation=1, local=ROOT_NODE, live=True).pack()
    listed = names(ask(volume, fossil.READDIR, ROOT_NODE, read_in(handle)))
    assert listed == ["..data", "..1", "nest", "user"]


def test_releases_make_the_volume_idle(volume: FakeVolume) -> None:
    """The volume is idle once what was open before is closed; fossil handles do not count."""
    volume.table.opened(2)
    assert not volume.table.is_idle()
    handle = Handle(generation=2, local=volume.node("user")).pack()
    ask(volume, fossil.RELEASE, ROOT_NODE, struct.pack("=Q16x", handle))
    ask(volume, fossil.RELEASEDIR, ROOT_NODE, bytes(24))
    assert volume.table.is_idle()


def test_forgets_get_no_answer(volume: FakeVolume) -> None:
    """Look-ups that the kernel forgets, one by one or many at once, are uncounted silently."""
    node = joined(1, volume.node("user"))
    volume.table.count_lookup(node, 3)
    server = Fossil(volume.table)
    assert server.answer(request(fossil.FORGET, node, struct.pack("=Q", 1))) is None
    batch = struct.pack("=2I2Q", 1, 0, node, 2)
    assert server.answer(request(fossil.BATCH_FORGET, 0, batch)) is None
    assert 1 not in volume.in_use()


def test_cut_request_is_an_error(volume: FakeVolume, announced: list[str]) -> None:
    """A request that cannot be read is EIO for who asked, and ends nobody."""
    announced.append("request of a frozen volume failed")
    with pytest.raises(OSError, match=str(errno.EIO)):
        ask(volume, fossil.READ, ROOT_NODE, b"short")
    assert Fossil(volume.table).answer(request(fossil.FORGET, ROOT_NODE)) is None


def test_sizes_are_told(volume: FakeVolume) -> None:
    """Statfs tells a full file system of the real size."""
    found = struct.unpack_from("=5Q3I", ask(volume, fossil.STATFS, ROOT_NODE))
    assert found == (1, 0, 0, 2, 0, 4096, 255, 4096)
    assert len(ask(volume, fossil.STATFS, ROOT_NODE)) == 80


def test_stale_node_is_said_to_be(volume: FakeVolume) -> None:
    """A node of a generation that is gone is ESTALE."""
    with pytest.raises(OSError, match=str(errno.ESTALE)):
        ask(volume, fossil.GETATTR, joined(9, ROOT_NODE))


async def test_served_one_after_another(volume: FakeVolume) -> None:
    """Each request is answered in order, and then told of, until the gate is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(0)
    answered: list[int] = []
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            gate = Gate(theirs.fileno(), Pace(10**6))
            nursery.start_soon(
                Fossil(volume.table).serve, gate, theirs.fileno(), lambda: answered.append(1)
            )
            with trio.fail_after(5):
                for unique in (2, 4):
                    ours.send(request(OPEN, ROOT_NODE, unique=unique))
                    await trio.lowlevel.wait_readable(ours)
                    reply = os.read(ours.fileno(), 64)
                    assert struct.unpack("=IiQ", reply) == (16, -errno.ENOSYS, unique)
            gate.close()
    assert len(answered) == 2


async def test_service_ends_with_the_connection(
    volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that was withdrawn, or taken by somebody else, is nothing; ENODEV is the end."""
    outcomes = [errno.EAGAIN, errno.EINTR, errno.ENOENT, errno.ENODEV]

    def read(*_: object) -> int:
        raise OSError(outcomes.pop(0), "")

    monkeypatch.setattr(os, "readv", read)
    ours, theirs = socket.socketpair()
    with ours, theirs, trio.fail_after(5):
        ours.send(b"x")
        gate = Gate(theirs.fileno(), Pace(10**6))
        await Fossil(volume.table).serve(gate, theirs.fileno(), lambda: None)
    assert not outcomes


async def test_killed_caller_is_no_trouble(
    volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel knows nothing of a request whose caller has been killed; the next one comes."""

    def write(*_: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "write", write)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gate = Gate(theirs.fileno(), Pace(10**6))
    with ours, theirs, trio.fail_after(5):
        ours.send(request(OPEN, ROOT_NODE))
        await Fossil(volume.table).serve(gate, theirs.fileno(), gate.close)

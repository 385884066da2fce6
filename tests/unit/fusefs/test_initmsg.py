"""INIT and notifications, byte by byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.initmsg import (
    FUSE_CACHE_SYMLINKS,
    FUSE_HAS_RESEND,
    FUSE_INIT_EXT,
    OPCODE_INIT,
    invalidate_entry,
    offered_flags,
    resend,
    with_cached_symlinks,
)


def request(low: int, high: int = 0, *, opcode: int = OPCODE_INIT) -> bytes:
    """Return an INIT request as a kernel of protocol 7.45 sends it."""
    body = struct.pack("=IIIII", 7, 45, 0x20000, low, high) + bytes(44)
    header = struct.pack("=IIQQIIIHH", 40 + len(body), opcode, 2, 0, 0, 0, 0, 0, 0)
    return header + body


def reply(flags: int) -> bytes:
    """Return libfuse's reply to INIT."""
    return struct.pack("=IiQ", 80, 0, 2) + struct.pack("=IIII", 7, 38, 0x20000, flags) + bytes(48)


@given(low=st.integers(0, 2**32 - 1), high=st.integers(0, 2**32 - 1))
def test_upper_flags_count_with_the_extension(low: int, high: int) -> None:
    """The upper half means something only where FUSE_INIT_EXT says that it is there."""
    expected = low | high << 32 if low & FUSE_INIT_EXT else low
    assert offered_flags(request(low, high)) == expected


def test_resend_is_an_upper_flag() -> None:
    """A kernel of 6.9 offers it, an older one does not."""
    assert offered_flags(request(FUSE_INIT_EXT, FUSE_HAS_RESEND >> 32)) & FUSE_HAS_RESEND
    assert not offered_flags(request(0xFFFFFFFF & ~FUSE_INIT_EXT, 0xFFFFFFFF)) & FUSE_HAS_RESEND


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"", "shorter", id="empty"),
        pytest.param(request(0)[:59], "shorter", id="short"),
        pytest.param(request(0, opcode=1), "another one", id="lookup"),
    ],
)
def test_other_requests_are_no_init(data: bytes, problem: str) -> None:
    """What the kernel sent instead is not taken for an offer."""
    with pytest.raises(ValueError, match=problem):
        offered_flags(data)


@given(flags=st.integers(0, 2**32 - 1), offered=st.integers(0, 2**64 - 1))
def test_reply_gains_at_most_one_flag(flags: int, offered: int) -> None:
    """Cached links are switched on where they are offered; nothing else is touched."""
    edited = with_cached_symlinks(reply(flags), offered)
    assert edited == reply(flags | (offered & FUSE_CACHE_SYMLINKS))


def test_resend_is_a_bare_header() -> None:
    """A notification has no request id and its code where an error would be."""
    assert resend() == struct.pack("=IiQ", 16, 7, 0)


@given(parent=st.integers(1, 2**63 - 1), name=st.binary(min_size=1, max_size=255))
def test_invalidation_carries_name_and_length(parent: int, name: bytes) -> None:
    """The length counts the name alone, the message also the byte that ends it."""
    found = invalidate_entry(parent, name)
    assert struct.unpack_from("=IiQ", found) == (len(found), 3, 0)
    assert struct.unpack_from("=QII", found, 16) == (parent, len(name), 0)
    assert found[32:] == name + b"\0"

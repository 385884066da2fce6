"""INIT and notifications, byte by byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.initmsg import (
    FUSE_ALLOW_IDMAP,
    FUSE_CACHE_SYMLINKS,
    FUSE_HAS_RESEND,
    FUSE_INIT_EXT,
    FUSE_MAX_PAGES,
    OPCODE_INIT,
    allows_idmap,
    invalidate_content,
    invalidate_entry,
    offered_flags,
    relayed,
    resend,
)


def request(low: int, high: int = 0, *, opcode: int = OPCODE_INIT) -> bytes:
    """Return an INIT request as a kernel of protocol 7.45 sends it."""
    body = struct.pack("=IIIII", 7, 45, 0x20000, low, high) + bytes(44)
    header = struct.pack("=IIQQIIIHH", 40 + len(body), opcode, 2, 0, 0, 0, 0, 0, 0)
    return header + body


def reply(low: int, high: int = 0) -> bytes:
    """Return libfuse's reply to INIT."""
    body = struct.pack("=IIII16xI", 7, 38, 0x20000, low, high) + bytes(28)
    return struct.pack("=IiQ", 16 + len(body), 0, 2) + body


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
def test_reply_changes_in_two_flags(flags: int, offered: int) -> None:
    """Cached links are switched on where they are offered, and replies fit a packet."""
    edited = relayed(reply(flags), offered, user_namespace=False)
    assert edited == reply(flags & ~FUSE_MAX_PAGES | (offered & FUSE_CACHE_SYMLINKS))


@given(low=st.integers(0, 2**32 - 1), high=st.integers(0, 2**32 - 1))
def test_idmap_is_asked_for_pods_that_need_it(low: int, high: int) -> None:
    """For a pod in a user namespace the upper half comes in, where the kernel offers idmap."""
    without = FUSE_INIT_EXT
    low &= ~FUSE_MAX_PAGES
    assert relayed(reply(low, high), without, user_namespace=True) == reply(low, high)
    edited = relayed(reply(low, high), FUSE_INIT_EXT | FUSE_ALLOW_IDMAP, user_namespace=True)
    assert edited == reply(low | FUSE_INIT_EXT, high | FUSE_ALLOW_IDMAP >> 32)
    assert allows_idmap(edited)
    assert not allows_idmap(reply(low & ~FUSE_INIT_EXT, high))
    assert not allows_idmap(edited[:50])


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


@given(node=st.integers(1, 2**63 - 1))
def test_content_is_dropped_as_a_whole(node: int) -> None:
    """Pages go from the first byte to the last, which a length of 0 says."""
    found = invalidate_content(node)
    assert struct.unpack("=IiQQqq", found) == (len(found), 2, 0, node, 0, 0)

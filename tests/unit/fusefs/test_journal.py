"""The request in work survives whoever had it, at whatever moment that one dies."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.journal import SLOT_BYTES, Journal
from fusefs.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator


class Page:
    """A page of counts, and the journals of workers on it."""

    def __init__(self) -> None:
        self.fd = Usage.create()
        self.usage = Usage(self.fd)
        self.journals: list[Journal] = []

    def journal(self, number: int) -> Journal:
        """Return the journal as a worker sees it."""
        self.journals.append(self.usage.journal(number))
        return self.journals[-1]

    def close(self) -> None:
        """Unmap the page."""
        for one in self.journals:
            one.close()
        self.usage.close()
        os.close(self.fd)


@pytest.fixture
def page() -> Iterator[Page]:
    """Return an empty page."""
    made = Page()
    yield made
    made.close()


def request(body: bytes) -> bytes:
    """Return something with its length in front."""
    return struct.pack("=I", 4 + len(body)) + body


def take(journal: Journal, found: bytes) -> None:
    """Do as the kernel does when a request is read."""
    journal.own[: len(found)] = found


def test_new_page_has_nothing_in_work(page: Page) -> None:
    """The first worker finds nothing to answer."""
    assert page.journal(0).take_lost() is None


@pytest.mark.parametrize("successor", [1, 2], ids=["next", "after-next"])
def test_request_in_work_is_found(page: Page, successor: int) -> None:
    """By the next worker, or by one after it that finds its own slot filled."""
    take(page.journal(0), request(b"lookup"))
    journal = page.journal(successor)
    assert journal.take_lost() == request(b"lookup")
    journal.clear()
    assert journal.take_lost() is None


def test_request_that_kills_stays_in_work(page: Page) -> None:
    """A successor that dies over it leaves it to the next one."""
    take(page.journal(0), request(b"lookup"))
    for number in range(1, 6):
        assert page.journal(number).take_lost() == request(b"lookup")


def test_both_requests_are_found(page: Page) -> None:
    """One that was taken by a worker which could not be killed comes after this worker's own."""
    take(page.journal(1), request(b"stuck"))
    own = page.journal(0)
    take(own, request(b"own"))
    found = []
    while (lost := own.take_lost()) is not None:
        found.append(lost)
        own.clear()
    assert found == [request(b"own"), request(b"stuck")]


def test_counts_and_journal_do_not_meet(page: Page) -> None:
    """The largest request changes no count."""
    page.usage.add_handles(7, 3)
    page.usage.set_progress(9, 2)
    for number in (0, 1):
        take(page.journal(number), request(b"\xff" * (SLOT_BYTES - 4)))
    page.usage.reload()
    assert (page.usage.in_use(7), page.usage.progress(9)) == (True, 2)
    page.usage.clear(7)
    assert page.journal(2).take_lost() == request(b"\xff" * (SLOT_BYTES - 4))


@given(length=st.integers(0, 2**32 - 1))
def test_any_length_is_bounded_by_the_slot(length: int) -> None:
    """What does not fit, or is a lie, is cut at the end of the slot."""
    page = Page()
    try:
        take(page.journal(0), struct.pack("=I", length))
        found = page.journal(1).take_lost()
        assert found is None if length == 0 else len(found or b"") == min(length, SLOT_BYTES)
    finally:
        page.close()

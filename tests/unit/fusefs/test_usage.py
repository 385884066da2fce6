"""The page of counts: it outlives workers, and never counts below nothing."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.usage import MAX_GENERATIONS, PAGE_BYTES, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator


class Page:
    """A page whose worker can be replaced."""

    def __init__(self) -> None:
        self.fd = Usage.create()
        self.usage = Usage(self.fd)

    def restart_worker(self) -> Usage:
        """Map the page anew, as a successor does, and return the new mapping."""
        self.usage.close()
        self.usage = Usage(self.fd)
        return self.usage

    def in_use(self) -> set[int]:
        """Return the generations in use, among all that these tests count."""
        return {number for number in range(1, 10_001) if self.usage.in_use(number)}

    def close(self) -> None:
        """Unmap and close."""
        self.usage.close()
        os.close(self.fd)


@pytest.fixture
def page() -> Iterator[Page]:
    """Return an empty page."""
    made = Page()
    yield made
    made.close()


def test_new_page_counts_nothing(page: Page) -> None:
    """Nothing is in use and no plan is in progress; the page has its full size."""
    assert os.fstat(page.fd).st_size == PAGE_BYTES
    assert page.in_use() == set()
    assert page.usage.progress(1) == 0


@pytest.mark.parametrize("count", ["add_lookups", "add_handles"])
def test_generation_is_in_use_until_counted_down(page: Page, count: str) -> None:
    """A look-up or a handle alone keeps a generation in use."""
    add = getattr(page.usage, count)
    add(3, 2)
    add(3, -1)
    assert page.usage.in_use(3)
    add(3, -1)
    assert not page.usage.in_use(3)


def test_counts_survive_the_worker(page: Page) -> None:
    """A successor, and the keeper, see what the predecessor counted."""
    page.usage.add_lookups(7, 5)
    page.usage.add_handles(8, 1)
    page.usage.set_progress(8, 3)
    successor = page.restart_worker()
    assert successor.in_use(7)
    assert successor.in_use(8)
    assert page.in_use() == {7, 8}
    assert successor.progress(8) == 3


def test_counts_never_go_below_zero(page: Page) -> None:
    """A forget that was counted twice does not hide the look-up that comes after it."""
    page.usage.add_lookups(1, 1)
    page.usage.add_lookups(1, -5)
    page.usage.add_handles(1, -1)
    assert not page.usage.in_use(1)
    page.usage.add_lookups(1, 1)
    assert page.usage.in_use(1)


def test_look_ups_do_not_pay_for_handles(page: Page) -> None:
    """The two counts are apart: forgetting everything does not close a handle."""
    page.usage.add_lookups(1, 1)
    page.usage.add_handles(1, 1)
    page.usage.add_lookups(1, -2)
    assert page.usage.in_use(1)


def test_cleared_generations_free_their_slots(page: Page) -> None:
    """A volume may see any number of generations, as long as few are kept at a time."""
    for generation in range(1, 3 * MAX_GENERATIONS):
        page.usage.add_lookups(generation, 1)
        page.usage.clear(generation)
    assert page.in_use() == set()


def test_clearing_the_unknown_is_harmless(page: Page) -> None:
    """A generation that never was in use has no slot to free."""
    page.usage.clear(9)
    assert not page.usage.in_use(9)


def test_late_forgets_take_up_no_slot(page: Page) -> None:
    """Forgets and releases of generations that were dropped by force do not fill the page up."""
    for generation in range(1, MAX_GENERATIONS + 2):
        page.usage.add_lookups(generation, 1)
        page.usage.clear(generation)
        page.usage.add_lookups(generation, -1)
        page.usage.add_handles(generation, -1)
    page.usage.add_lookups(10_000, 1)
    assert page.in_use() == {10_000}


def test_progress_belongs_to_one_generation(page: Page) -> None:
    """A new plan starts at nothing done, whatever the one before got to."""
    page.usage.set_progress(2, 9)
    assert page.usage.progress(3) == 0
    page.usage.set_progress(3, 1)
    assert page.usage.progress(3) == 1
    assert page.usage.progress(2) == 0


@given(
    changes=st.lists(
        st.tuples(st.integers(1, 4), st.booleans(), st.integers(-3, 3), st.booleans()), max_size=30
    )
)
def test_counts_agree_with_a_counter(changes: list[tuple[int, bool, int, bool]]) -> None:
    """Whatever is counted, over restarts: in use means that a count is above zero."""
    page = Page()
    lookups, handles = Counter[int](), Counter[int]()
    for generation, is_handle, change, restart in changes:
        count = handles if is_handle else lookups
        count[generation] = max(0, count[generation] + change)
        add = page.usage.add_handles if is_handle else page.usage.add_lookups
        add(generation, change)
        if restart:
            page.restart_worker()
        in_use = {one for one in range(1, 5) if lookups[one] or handles[one]}
        assert {one for one in range(1, 5) if page.usage.in_use(one)} == in_use
    page.close()


def test_frozen_volume_is_known_by_its_page() -> None:
    """The mark is in nobody's way: counts and the journal read on."""
    fd = Usage.create()
    usage = Usage(fd)
    usage.add_lookups(7, 3)
    assert not Usage.is_frozen(fd)
    Usage.mark_frozen(fd)
    assert Usage.is_frozen(fd)
    assert usage.in_use(7)
    assert usage.journal(0).take_lost() is None
    usage.close()
    os.close(fd)

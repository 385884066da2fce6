"""Which generations the keeper holds, and which of them it asks the worker to let go."""

from __future__ import annotations

import fcntl
import math
import os
import resource
from mmap import PAGESIZE
from pathlib import Path
from resource import RLIM_INFINITY
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs import kept as module
from fusefs.errors import InvalidSnapshot, OverBudget
from fusefs.kept import GRACE_S, KeptGenerations, mappable_bytes
from fusefs.memory import sealed_memfd, store
from fusefs.usage import MAX_GENERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 100  # bytes of each snapshot here
BUDGET = 10 * SIZE


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands."""
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> Iterator[KeptGenerations]:
    """Return an empty collection with a small budget."""
    made = KeptGenerations(budget_bytes=BUDGET, clock=clock)
    yield made
    made.close()


def add(kept: KeptGenerations, *generations: int) -> None:
    """Keep snapshots of these generations."""
    for generation in generations:
        kept.add(generation, sealed_memfd("test", [b"x" * SIZE]))


def test_generations_are_kept_oldest_first(kept: KeptGenerations) -> None:
    """Descriptors come in the order of generations, up to what a worker may know."""
    add(kept, 2, 1, 3)
    assert kept.generations() == [1, 2, 3]
    assert kept.newest == 3
    assert kept.descriptors(up_to=2) == [(1, kept.descriptor(1)), (2, kept.descriptor(2))]
    assert os.fstat(kept.descriptor(3)).st_size == SIZE


def test_kept_pages_are_locked_until_let_go(kept: KeptGenerations) -> None:
    """Every kept generation is locked in memory, and no longer than it is kept."""
    before = locked_kilobytes()
    add(kept, 1, 2)
    assert locked_kilobytes() == before + 8
    kept.drop([1], spare=())
    assert locked_kilobytes() == before + 4
    kept.close()
    assert locked_kilobytes() == before


def locked_kilobytes() -> int:
    """Return how much of this process is locked in memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [line] = [line for line in lines if line.startswith("VmLck:")]
    return int(line.split()[1])


def test_current_generation_never_goes(kept: KeptGenerations, clock: Clock) -> None:
    """What nothing has superseded stays, however old."""
    add(kept, 1)
    clock.now += 1000
    assert kept.removable(spare=()) == ([], [])


def test_superseded_generation_stays_for_a_grace(kept: KeptGenerations, clock: Clock) -> None:
    """A path walk may just have read ``..data``: it gets the time to arrive."""
    add(kept, 1, 2)
    kept.supersede(2)
    clock.now += GRACE_S - 0.1
    kept.supersede(2)  # again: the grace does not start anew
    assert kept.removable(spare=()) == ([], [])
    clock.now += 0.1
    assert kept.removable(spare=()) == ([1], [])


def test_spared_generation_is_not_offered(kept: KeptGenerations, clock: Clock) -> None:
    """What a plan leads from or to is kept, whatever its age and the budget."""
    add(kept, *range(1, 15))
    kept.supersede(14)
    clock.now += GRACE_S
    idle, excess = kept.removable(spare={1, 2, 14})
    assert not {1, 2, 14} & {*idle, *excess}


def test_oldest_go_by_force_beyond_the_budget(kept: KeptGenerations, clock: Clock) -> None:
    """As many as it takes, used or not, without waiting for the grace; the rest is only offered."""
    add(kept, *range(1, 14))
    kept.supersede(13)
    assert kept.removable(spare={13}) == ([], [1, 2, 3])
    clock.now += GRACE_S
    assert kept.removable(spare={13}) == (list(range(4, 13)), [1, 2, 3])


def test_secret_memory_has_a_budget_of_its_own(clock: Clock) -> None:
    """Oldest first, as many go as a worker could not map; pages count, and sealed files do not."""
    kept = KeptGenerations(secret_bytes=2.5 * PAGESIZE, clock=clock)
    add(kept, 1)
    for generation in range(2, 6):
        stored = store("test", [b"x" * SIZE])
        assert stored.digest, "this kernel has no secret memory; tests want one that does"
        kept.add(generation, stored.fd, stored.digest)
    kept.supersede(5)
    assert kept.removable(spare={5}) == ([], [2, 3])
    kept.close()


@pytest.mark.parametrize(("limit", "mappable"), [(RLIM_INFINITY, math.inf), (8 << 20, 4 << 20)])
def test_workers_limit_is_the_budget(
    monkeypatch: pytest.MonkeyPatch, limit: int, mappable: float
) -> None:
    """A volume may have half of what its worker may lock."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert mappable_bytes() == mappable


def test_number_of_generations_has_a_limit(clock: Clock) -> None:
    """The page of counts has a slot for each, and a few must stay free."""
    kept = KeptGenerations(clock=clock)
    most = MAX_GENERATIONS - 8
    add(kept, *range(1, most + 3))
    kept.supersede(most + 2)
    _, excess = kept.removable(spare={most + 2})
    kept.close()
    assert excess == [1, 2]


def test_dropped_generations_are_let_go_of(kept: KeptGenerations) -> None:
    """What the worker says it has dropped goes, unless it is spared or unknown."""
    add(kept, 1, 2, 3)
    fd = kept.descriptor(1)
    kept.drop([1, 2, 9], spare={2})
    assert kept.generations() == [2, 3]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@given(
    newest=st.integers(1, 20),
    lying=st.lists(st.integers(-5, 25), max_size=30),
    spare=st.sets(st.integers(1, 20), max_size=4),
)
def test_lying_worker_takes_nothing_needed(newest: int, lying: list[int], spare: set[int]) -> None:
    """Whatever numbers a worker reports, what is spared stays."""
    kept = KeptGenerations()
    add(kept, *range(1, newest + 1))
    needed = {one for one in spare if one <= newest}
    kept.drop(lying, spare=spare)
    assert needed <= set(kept.generations())
    assert set(kept.generations()) == set(range(1, newest + 1)) - (set(lying) - spare)
    kept.close()


def test_unsealed_snapshot_is_not_kept(kept: KeptGenerations) -> None:
    """A refused descriptor is closed, and the collection stays as it was."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, b"x")
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with pytest.raises(InvalidSnapshot):
        kept.add(1, fd)
    assert kept.generations() == []


def test_unlockable_memory_is_over_budget(
    kept: KeptGenerations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that does not let so much be locked is named as the reason."""

    def refuse(_: int, __: int) -> None:
        raise OSError(12, "mlock: Cannot allocate memory")

    monkeypatch.setattr(module, "LockedPages", refuse)
    with pytest.raises(OverBudget, match="100 bytes of content cannot be locked"):
        add(kept, 1)
    assert kept.generations() == []

"""One number space: ids and handles come back as they went."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fusefs.nodeids import (
    GENERATION_SHIFT,
    LINK_LOCAL,
    LOCAL_MASK,
    PRIME_NODE,
    ROOT_NODE,
    Handle,
    joined,
    split,
)

LOCALS = st.integers(0, LOCAL_MASK)
# What is left of 64 bits beside the flags of a handle: 2**37 generations last for centuries.
GENERATIONS = st.integers(0, 2 ** (61 - GENERATION_SHIFT) - 1)


@given(generation=GENERATIONS, local=LOCALS)
def test_node_ids_split_into_what_was_joined(generation: int, local: int) -> None:
    """Generation and local id come back, and the number fits the kernel's 64 bits."""
    node = joined(generation, local)
    assert split(node) == (generation, local)
    assert 0 <= node < 2**63


@given(handle=st.builds(Handle, generation=GENERATIONS, local=LOCALS, live=..., writing=...))
def test_handles_survive_being_a_number(handle: Handle) -> None:
    """What the kernel keeps is the whole handle: any worker understands it."""
    assert Handle.unpack(handle.pack()) == handle
    assert 0 <= handle.pack() < 2**63


@given(one=LOCALS, other=LOCALS, generations=st.tuples(GENERATIONS, GENERATIONS))
def test_different_nodes_have_different_ids(
    one: int, other: int, generations: tuple[int, int]
) -> None:
    """A live node and a generation's, or those of two generations, are never one number."""
    same = (generations[0], one) == (generations[1], other)
    assert (joined(generations[0], one) == joined(generations[1], other)) is same


def test_reserved_ids_are_no_ids_of_files() -> None:
    """The root is the kernel's 1; link and priming file are at the far end of the space."""
    assert joined(0, ROOT_NODE) == 1
    assert len({ROOT_NODE, LINK_LOCAL, PRIME_NODE}) == 3
    assert min(LINK_LOCAL, PRIME_NODE) >= LOCAL_MASK - 1

"""The steps of a rotation: always legal, always enough."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from fakes.trees import TREES, apply_step, kinds, sealed
from fusefs.plan import Plan, Step, decode, steps_between

STEPS = {
    "nothing-changes": ({"a": b""}, {"a": b"x"}, []),
    "first-files": ({}, {"a": b"", "d/b": b""}, ["create a", "mkdir d", "create d/b"]),
    "file-goes": ({"a": b"", "b": b""}, {"b": b""}, ["unlink a"]),
    "additions-before-removals": ({"a": b""}, {"b": b""}, ["create b", "unlink a"]),
    "directory-goes": ({"d/e/f": b""}, {}, ["unlink d/e/f", "rmdir d/e", "rmdir d"]),
    "moves-below": (
        {"d/a": b""},
        {"d/e/a": b""},
        ["mkdir d/e", "create d/e/a", "unlink d/a"],
    ),
    "file-becomes-directory": (
        {"a": b"", "z": b""},
        {"a/b": b""},
        ["unlink a", "mkdir a", "create a/b", "unlink z"],
    ),
    "directory-becomes-file": (
        {"a/b": b"", "a/c/d": b"", "z": b""},
        {"a": b""},
        ["unlink a/c/d", "unlink a/b", "rmdir a/c", "rmdir a", "create a", "unlink z"],
    ),
    "kinds-swap": (
        {"a": b"", "b/a": b""},
        {"b": b"", "a/b": b""},
        ["unlink b/a", "unlink a", "rmdir b", "mkdir a", "create b", "create a/b"],
    ),
}


@pytest.mark.parametrize(("before", "after", "steps"), STEPS.values(), ids=STEPS)
def test_steps_come_in_the_order_they_must(
    before: dict[str, bytes], after: dict[str, bytes], steps: list[str]
) -> None:
    """What stands in the way goes first, then additions, then all other removals."""
    found = steps_between(kinds(before), kinds(after))
    assert [f"{step.kind} {step.path}" for step in found] == steps


@given(before=TREES, after=TREES)
def test_steps_are_legal_and_lead_to_the_tree(
    before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    """The kernel refuses none of the steps, and in the end the tree is the new one."""
    tree = kinds(before)
    for step in steps_between(tree.copy(), kinds(after)):
        apply_step(tree, step)
    assert tree == kinds(after)


@given(before=TREES, after=TREES)
def test_no_kept_name_goes_on_the_way(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """A path that both trees have, as the same kind, is in no step: readers never miss it."""
    old, new = kinds(before), kinds(after)
    same = {path for path in old if new.get(path) == old[path]}
    steps = steps_between(old, new)
    assert not same & {step.path for step in steps}
    assert len(set(steps)) == len(steps)


@given(before=TREES, after=TREES)
def test_plan_of_a_seal_names_what_changed(
    before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    """A plan leads from generation to generation and lists files with other bytes as changed."""
    with sealed(before) as first, sealed(after, first.snapshot) as second:
        plan = decode(second.plan)
    assert (plan.previous, plan.generation) == (1, 2)
    assert plan.steps == steps_between(kinds(before), kinds(after))
    assert set(plan.changed) == {
        path for path in after if path in before and before[path] != after[path]
    }


def test_plan_of_the_first_seal_is_empty() -> None:
    """The first generation leads from nowhere and has no steps: nobody watches yet."""
    with sealed({"a": b"x", "d/b": b""}) as first:
        assert decode(first.plan) == Plan(generation=1, previous=0)


@given(before=TREES, after=TREES)
def test_plan_survives_its_wire_form(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Decoding gives back what was encoded."""
    plan = Plan(
        generation=7,
        previous=3,
        steps=steps_between(kinds(before), kinds(after)),
        changed=tuple(after),
    )
    assert decode(plan.encode()) == plan


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xc1", id="no-msgpack"),
        pytest.param(msgspec.msgpack.encode(["1", 0]), id="wrong-type"),
        pytest.param(
            msgspec.msgpack.encode([1, 0, [["chmod", "a"]], []]), id="unknown-kind-of-step"
        ),
        pytest.param(Plan(generation=1, previous=0).encode()[:-1], id="cut-short"),
    ],
)
def test_other_bytes_are_no_plan(data: bytes) -> None:
    """What is not a plan is refused while it is decoded, not when it is followed."""
    with pytest.raises(msgspec.DecodeError):
        decode(data)


def test_step_is_one_name_and_its_kind() -> None:
    """Steps compare by value: the worker looks one up by what the kernel asked for."""
    assert Step("create", "a") == Step("create", "a") != Step("mkdir", "a")

"""Names follow the steps of a plan, one after another, and never the newest snapshot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.trees import TREES, apply_step, kinds, sealed
from fusefs.generation import Generation, Transition
from fusefs.nodeids import ROOT_NODE
from fusefs.plan import Plan, Step, steps_between


def transition_of(*steps: str, done: int = 0) -> Transition:
    """Return a transition with steps like "create a"."""
    parsed = [one.split(" ") for one in steps]
    made = tuple(Step(kind, path) for kind, path in parsed)  # type: ignore[arg-type]  # literals
    return Transition(Plan(generation=2, previous=1, steps=made), done)


@pytest.mark.parametrize(
    ("steps", "sides"),
    [
        pytest.param(["create a"], ["nowhere", "current"], id="appears"),
        pytest.param(["unlink a"], ["previous", "nowhere"], id="goes"),
        pytest.param(["create b"], ["unplanned", "unplanned"], id="other"),
        pytest.param(
            ["unlink a", "mkdir a"], ["previous", "nowhere", "current"], id="becomes-directory"
        ),
        pytest.param(
            ["rmdir a", "create b", "create a"],
            ["previous", "nowhere", "nowhere", "current"],
            id="becomes-file",
        ),
    ],
)
def test_sides_of_a_name_follow_the_steps(steps: list[str], sides: list[str]) -> None:
    """A name changes sides exactly when its own step is done."""
    found = [transition_of(*steps, done=done).side_of("a") for done in range(len(steps) + 1)]
    assert found == sides


@given(before=TREES, after=TREES, data=st.data())
def test_visible_names_are_the_tree_half_way(
    before: dict[str, bytes], after: dict[str, bytes], data: st.DataObject
) -> None:
    """After any number of steps, what the sides show is the old tree with those steps applied."""
    old, new = kinds(before), kinds(after)
    steps = steps_between(old, new)
    done = data.draw(st.integers(0, len(steps)))
    transition = Transition(Plan(generation=2, previous=1, steps=steps), done)
    expected = dict(old)
    for step in steps[:done]:
        apply_step(expected, step)
    shown = {}
    for path in {**old, **new}:
        side = transition.side_of(path)
        source = old if side == "previous" else new
        if side != "nowhere" and path in source:
            shown[path] = source[path]
    assert shown == expected


def test_link_and_swing_come_after_all_steps() -> None:
    """The temporary link exists between SYMLINK and RENAME only."""
    states = [
        (transition.linked, transition.swung)
        for done in range(5)
        for transition in [transition_of("create a", "create b", done=done)]
    ]
    assert states == [(False, False)] * 3 + [(True, False), (False, True)]


def test_plan_without_steps_still_swings() -> None:
    """A rotation that changes bytes only has the link and the rename to do."""
    assert not transition_of().linked
    assert transition_of(done=1).linked
    assert transition_of(done=2).swung


def test_numbers_are_of_the_step_as_a_whole() -> None:
    """A step is found by kind and path; the same path with another kind is another step."""
    transition = transition_of("unlink a", "mkdir a")
    assert transition.number_of(Step("unlink", "a")) == 0
    assert transition.number_of(Step("mkdir", "a")) == 1
    assert transition.number_of(Step("create", "a")) is None
    assert transition.number_of(Step("unlink", "b")) is None


@given(files=TREES)
def test_generation_indexes_every_name_once(files: dict[str, bytes]) -> None:
    """Walking the children from the root finds exactly the paths of the tree."""
    with sealed(files) as made:
        generation = Generation(made.snapshot)
        found = {}
        pending = [("", ROOT_NODE)]
        while pending:
            path, node = pending.pop()
            for name, child in generation.children[node].items():
                below = f"{path}/{name.decode()}".lstrip("/")
                found[below] = child in generation.directories
                assert child in generation
                if found[below]:
                    pending.append((below, child))
    assert found == kinds(files)
    assert 999 not in generation

"""Keeper's machine, real workers and touch child together: what is acknowledged is what is read."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from typing_extensions import override

from fakes.keeperworld import KeeperWorld
from fakes.trees import TREES, kinds
from fusefs.nodeids import split

pytestmark = pytest.mark.timeout(300)  # shrinking a failure takes its time

THEN = st.integers(0, 6)  # how much happens after what a rule does


class Acknowledged(RuleBasedStateMachine):
    """No read after an acknowledgement is older, whichever worker answers it."""

    @initialize(files=TREES)
    def publish(self, files: dict[str, bytes]) -> None:
        """Begin with a volume that is served."""
        self.world = KeeperWorld(files)

    def go_on(self, steps: int) -> None:
        """Let the first thing happen that can, and so on."""
        for _ in range(steps):
            choices = self.world.choices()
            if choices:
                choices[0]()

    @precondition(lambda self: self.world.volume.waiting < 3)
    @rule(files=TREES, then=THEN)
    def rotate(self, files: dict[str, bytes], then: int) -> None:
        """Hand in a generation."""
        self.world.rotate(files)
        self.go_on(then)

    @precondition(lambda self: self.world.choices())
    @rule(picks=st.lists(st.integers(0, 3), min_size=1, max_size=8))
    def things_happen(self, picks: list[int]) -> None:
        """Let some of the things happen that can."""
        for pick in picks:
            choices = self.world.choices()
            if choices:
                choices[pick % len(choices)]()

    @precondition(lambda self: self.world.worker)
    @rule(then=THEN)
    def worker_dies(self, then: int) -> None:
        """Kill the worker, whatever it is doing."""
        self.world.kill_worker()
        self.go_on(then)

    @precondition(lambda self: self.world.touch)
    @rule(then=THEN)
    def touch_child_dies(self, then: int) -> None:
        """Kill the touch child, wherever it has got to."""
        self.world.end_touch(None)
        self.go_on(then)

    @precondition(lambda self: self.world.worker)
    @rule(then=THEN)
    def sweep(self, then: int) -> None:
        """Let old generations go."""
        self.world.sweep()
        self.go_on(then)

    @invariant()
    def no_read_is_older_than_acknowledged(self) -> None:
        """Each file of the newest generation that can be found is of it, or of a newer one."""
        world, worker = self.world, self.world.worker
        if not worker or not worker.ready:
            return
        acknowledged = world.volume.acknowledged
        current = worker.table.current
        assert current >= acknowledged
        for path, content in world.contents[current].items():
            node = worker.node(path)
            if node is not None and worker.table.attributes(node).kind == "file":
                assert worker.read(path) == (current, content)

    @invariant()
    def acknowledged_names_are_there(self) -> None:
        """Between rotations the names are those of the generation, and ``..data`` leads to it."""
        world, worker = self.world, self.world.worker
        if not worker or not worker.ready or worker.inbox or world.volume.rotation:
            return
        acknowledged = world.volume.acknowledged
        assert world.visible() == set(kinds(world.contents[acknowledged]))
        link = worker.node("..data")
        assert link is not None
        assert split(link)[0] == acknowledged

    @invariant()
    def names_of_both_trees_never_go(self) -> None:
        """During a rotation, what was there and will be there is there, as the same kind."""
        world, worker = self.world, self.world.worker
        if not worker or not worker.ready or not worker.table.transition:
            return
        before = kinds(world.contents[worker.table.transition.plan.previous])
        after = kinds(world.contents[worker.table.current])
        both = {path for path, kind in before.items() if after.get(path) == kind}
        assert both <= world.visible()

    @invariant()
    def worker_and_table_are_sound(self) -> None:
        """The table's own invariants hold, and the keeper holds all that it may need."""
        world = self.world
        if world.worker:
            world.worker.table.check_invariants()
        assert world.volume.spared() <= set(world.kept.generations())

    @override
    def teardown(self) -> None:
        """Let everything come to its end: each request is answered, the newest content shown."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.come_to_rest()
        assert set(world.answers.values()) == {None}
        assert len(world.answers) == len(world.contents)
        assert world.volume.acknowledged == len(world.contents)
        assert (world.volume.phase, world.volume.rotation) == ("serving", None)
        self.acknowledged_names_are_there()
        self.no_read_is_older_than_acknowledged()
        world.close()


TestAcknowledged = Acknowledged.TestCase
# Runs are short, and the interleavings that matter are rare.
TestAcknowledged.settings = settings(max_examples=300, report_multiple_bugs=False)

"""Keeper and node server hold a volume for each other: no death of one loses anything.

The runs are those of `test_acknowledged`, with a node server, and keepers that die or hand over.
"""

from __future__ import annotations

import os
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from fakes.fuse import answer
from fakes.heldworld import HeldWorld
from fakes.trees import TREES
from fakes.volumes import CONTEXT

pytestmark = pytest.mark.timeout(300)  # shrinking a failure takes its time

THEN: Final = st.integers(0, 8)  # how much happens after what a rule does
STEADY: Final = "always"  # a file of every generation


class BackupAgreement(RuleBasedStateMachine):
    """Readers never see an older generation, and what was acknowledged is never lost."""

    @initialize(files=TREES)
    def publish(self, files: dict[str, bytes]) -> None:
        """Begin with a volume that is served."""
        self.world = HeldWorld({**files, STEADY: b"1"})
        self.seen = 1
        self.files: list[tuple[int, int]] = []

    def go_on(self, picks: list[int]) -> None:
        """Let some of the things happen that can."""
        for pick in picks:
            choices = self.world.choices()
            if choices:
                choices[pick % len(choices)]()
            self.never_an_older_generation()

    PICKS = st.lists(st.integers(0, 4), max_size=8)

    @precondition(lambda self: self.world.asked is None)
    @rule(files=TREES, picks=PICKS)
    def rotate(self, files: dict[str, bytes], picks: list[int]) -> None:
        """Send the next generation once the one before has been answered, or its keeper is gone."""
        assert self.world.newest is not None
        number = b"%d" % (self.world.newest.generation + 1)
        self.world.rotate({**files, STEADY: number})
        self.go_on(picks)

    @precondition(lambda self: self.world.choices())
    @rule(picks=PICKS)
    def things_happen(self, picks: list[int]) -> None:
        """Let some of the things happen that can."""
        self.go_on(picks)

    @precondition(lambda self: self.world.worker)
    @rule(picks=PICKS)
    def worker_dies(self, picks: list[int]) -> None:
        """Kill the worker, whatever it is doing."""
        self.world.kill_worker()
        self.go_on(picks)

    @rule(picks=PICKS)
    def keeper_dies(self, picks: list[int]) -> None:
        """Kill the keeper; the next one is given everything back."""
        self.world.kill_keeper()
        self.go_on(picks)

    @rule(picks=PICKS)
    def keeper_hands_over(self, picks: list[int]) -> None:
        """Let another keeper take over."""
        self.world.hand_over()
        self.go_on(picks)

    @rule(picks=PICKS)
    def node_server_dies(self, picks: list[int]) -> None:
        """Kill the node server; the next one takes everything from the keeper."""
        self.world.kill_node()
        self.go_on(picks)

    @rule(picks=PICKS)
    def session_breaks(self, picks: list[int]) -> None:
        """Lose what is on its way; both live on."""
        self.world.break_session()
        self.go_on(picks)

    @precondition(lambda self: self.world.worker)
    @rule(picks=PICKS)
    def sweep(self, picks: list[int]) -> None:
        """Let old generations go."""
        self.world.sweep()
        self.go_on(picks)

    # Readers

    @precondition(lambda self: self.world.worker and self.world.worker.ready)
    @rule()
    def open_file(self) -> None:
        """Open a file; its generation is in use until it is closed."""
        assert self.world.worker is not None
        node = self.world.worker.node(STEADY)
        assert node is not None
        info = answer(self.world.worker.operations.open(node, os.O_RDONLY, CONTEXT))
        self.files.append((info.fh, self.world.worker.table.current))

    @precondition(lambda self: self.files and self.world.worker and self.world.worker.ready)
    @rule()
    def close_file(self) -> None:
        """Close a file."""
        assert self.world.worker is not None
        number, _ = self.files.pop()
        answer(self.world.worker.operations.release(number))

    @invariant()
    def never_an_older_generation(self) -> None:
        """A reader sees what it saw before, or newer; never less than what was acknowledged."""
        worker = self.world.worker
        if worker is None or not worker.ready:
            return
        generation, content = worker.read(STEADY)
        assert generation >= max(self.seen, self.world.told)
        assert content == b"%d" % generation
        self.seen = generation

    @invariant()
    def open_files_stay_readable(self) -> None:
        """A handle gives the bytes of its generation, whatever has died since."""
        worker = self.world.worker
        if worker is None or not worker.ready:
            return
        for number, generation in self.files:
            assert answer(worker.operations.read(number, 0, 99)) == b"%d" % generation

    @invariant()
    def both_hold_the_same_in_the_end(self) -> None:
        """When nothing is on its way, the node server holds what the keeper has."""
        world = self.world
        if world.to_node or world.to_keeper:
            return
        [backup] = world.store
        assert sorted(backup.generations) == world.kept.generations()
        assert backup.acknowledged == world.volume.acknowledged
        unfinished = [each.generation for each in world.volume.under_way()]
        assert backup.unfinished == unfinished

    @override
    def teardown(self) -> None:
        """Let everything come to its end: the newest content is shown."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.come_to_rest()
        assert world.newest is not None
        assert world.volume.acknowledged == world.newest.generation == max(world.contents)
        assert (world.volume.phase, world.volume.rotation) == ("serving", None)
        self.never_an_older_generation()
        self.open_files_stay_readable()
        self.both_hold_the_same_in_the_end()
        world.close()


TestBackupAgreement = BackupAgreement.TestCase
TestBackupAgreement.settings = settings(max_examples=200, report_multiple_bugs=False)

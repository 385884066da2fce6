"""Names, nodes and counts of a volume against a model, over rotations and new workers.

The model is the tree as the kernel was told, a list of all contents there ever were, and a counter.
"""

from __future__ import annotations

from collections import Counter

import pyfuse3
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

from fakes.fuse import answer
from fakes.trees import TREES, apply_step, kinds
from fakes.volumes import CONTEXT, FakeVolume
from fusefs.errors import NoSuchName, NotADirectoryNode, StaleGeneration
from fusefs.nodeids import ROOT_NODE, joined, split
from fusefs.plan import Step

pytestmark = pytest.mark.timeout(300)  # shrinking a failure takes its time

TIMES = st.sampled_from([1, 1, 1, 2])  # an operation may arrive again


class Names(RuleBasedStateMachine):
    """What a walk finds is what the kernel was told, whichever worker answers."""

    @initialize(files=TREES)
    def publish(self, files: dict[str, bytes]) -> None:
        """Begin with one generation."""
        self.volume = FakeVolume(files)
        self.contents = {1: files}
        self.tree = kinds(files)
        self.shown = 1
        self.done = 0  # steps, link and swing of the plan in progress
        self.lookups: Counter[int] = Counter()
        self.nodes: dict[tuple[str, bool], int] = {}

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the plan in progress."""
        return self.volume.plan.steps

    @property
    def rotating(self) -> bool:
        """Whether a plan is in progress."""
        return self.volume.plan.previous > 0

    # A rotation

    @precondition(lambda self: not self.rotating)
    @rule(files=TREES)
    def swap(self, files: dict[str, bytes]) -> None:
        """Bring in the next generation; no name changes yet."""
        self.volume.swap(files)
        self.contents[self.volume.table.current] = files
        self.done = 0

    @precondition(lambda self: self.rotating)
    @rule(count=st.integers(1, 3), times=TIMES, restart=st.booleans())
    def go_on(self, count: int, times: int, *, restart: bool) -> None:
        """Let the next operations of the plan arrive, perhaps twice, or at a new worker."""
        for _ in range(count):
            if self.rotating:
                self.next_operation(times)
                self.names_are_what_the_kernel_was_told()
            if restart:
                self.restart()

    @rule(files=TREES, count=st.integers(0, 5))
    def go_on_to_the_next(self, files: dict[str, bytes], count: int) -> None:
        """Come to the end of the plan in progress, and some way into the next."""
        while self.rotating:
            self.next_operation(1)
        self.swap(files)
        if count:
            self.go_on(count, 1, restart=False)

    def next_operation(self, times: int) -> None:
        """Ask for the next step, the link or the rename so often, or end the plan."""
        match self.done - len(self.steps):
            case 0:
                self.link(times)
            case 1:
                self.swing(times)
            case 2:
                self.volume.finish()
            case _:
                step = self.steps[self.done]
                for _ in range(times):
                    self.volume.ask(step)
                apply_step(self.tree, step)
        self.done += 1

    def link(self, times: int) -> None:
        """Make the temporary link; its look-up is counted each time it is answered."""
        for _ in range(times):
            self.volume.link()
        self.lookups[self.volume.table.current] += times
        assert self.volume.node("..data_tmp") == self.volume.links[-1]

    def swing(self, times: int) -> None:
        """Let ``..data`` name the new generation; the kernel forgets the link before."""
        for node in self.volume.links[:-1]:
            self.lookups[split(node)[0]] -= 1
        for _ in range(times):
            self.volume.swing()
        self.shown = self.volume.table.current

    @rule(
        step=st.builds(
            Step, st.sampled_from(["mkdir", "create", "unlink", "rmdir"]), st.sampled_from("abx")
        )
    )
    def anything_else_is_refused(self, step: Step) -> None:
        """An operation that is not due, or not part of the plan, changes nothing."""
        due = self.steps[: self.done + 1] if self.rotating else ()
        if step not in due:
            with pytest.raises(pyfuse3.FUSEError):
                self.volume.ask(step)

    # Workers

    @rule()
    def restart(self) -> None:
        """Replace the worker, after the request that counts the last release."""
        self.volume.in_use()
        self.volume.restart()

    # The kernel's look-ups

    @rule(data=st.data())
    def look_up(self, data: st.DataObject) -> None:
        """Walk to a path in some view and count what the kernel learnt on the way."""
        generation = data.draw(st.sampled_from([0, *self.volume.table.generations]), label="view")
        tree = kinds(self.contents[generation]) if generation else self.tree
        path = data.draw(st.sampled_from(["x", *tree]), label="path")
        node = ROOT_NODE
        names = [*([f"..{generation}"] if generation else []), *path.split("/")]
        for name in names:
            try:
                entry = answer(self.volume.operations.lookup(node, name.encode(), CONTEXT))
            except pyfuse3.FUSEError:
                assert path == "x"
                return
            node = entry.st_ino
            if generation:
                self.lookups[generation] += 1
            else:
                self.volume.bound.add(node)
        assert path != "x"
        assert split(node)[0] == generation
        assert self.nodes.setdefault((path, tree[path]), split(node)[1]) == split(node)[1]

    @precondition(lambda self: +self.lookups)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Let the kernel forget some of what it knows of a generation, apart from links."""
        generation = data.draw(st.sampled_from(sorted(+self.lookups)), label="generation")
        links = sum(split(node)[0] == generation for node in self.volume.links)
        count = data.draw(st.integers(0, self.lookups[generation] - links), label="count")
        answer(self.volume.operations.forget([(joined(generation, ROOT_NODE), count)]))
        self.lookups[generation] -= count

    @precondition(lambda self: self.volume.bound)
    @rule(data=st.data())
    def forget_live(self, data: st.DataObject) -> None:
        """Let the kernel forget a live node."""
        node = data.draw(st.sampled_from(sorted(self.volume.bound)), label="node")
        answer(self.volume.operations.forget([(node, 1)]))
        self.volume.bound.remove(node)

    # Retention

    @rule(data=st.data(), forced=st.sampled_from([False, False, True]))
    def drop(self, data: st.DataObject, *, forced: bool) -> None:
        """Let go of generations, as the keeper asks: never of those that a plan needs."""
        table = self.volume.table
        spared = {table.current, self.volume.plan.previous}
        offered = [number for number in table.generations if number not in spared]
        asked = data.draw(st.lists(st.sampled_from(offered), unique=True)) if offered else []
        expected = [one for one in asked if forced or not self.is_needed(one)]
        assert self.volume.drop(asked, forced=forced) == expected
        for number in expected:
            del self.lookups[number]

    def is_needed(self, number: int) -> bool:
        """Whether the kernel knows a node of a generation, or a live node that it has last."""
        later = [other for other in self.volume.table.generations if other > number]
        have = set().union(*(self.volume.table.generations[other].files for other in later))
        have |= set().union(*(self.volume.table.generations[other].directories for other in later))
        mine = self.volume.table.generations[number]
        last = {*mine.files, *mine.directories} - have
        return self.lookups[number] > 0 or bool(last & self.volume.bound)

    # What always holds

    @invariant()
    def names_are_what_the_kernel_was_told(self) -> None:
        """A name appears with its own step and goes with it; what both trees have never goes."""
        candidates = {path for files in self.contents.values() for path in kinds(files)}
        assert {path for path in candidates if self.finds(path)} == set(self.tree)
        if self.rotating:
            before = kinds(self.contents[self.volume.plan.previous])
            after = kinds(self.contents[self.volume.table.current])
            both = {path for path, kind in before.items() if after.get(path) == kind}
            assert both <= set(self.tree)

    def finds(self, path: str) -> bool:
        """Whether a walk in the live view finds `path`, as the kind that the model has."""
        try:
            found = self.volume.table.attributes(self.volume.node(path))
        except (NoSuchName, NotADirectoryNode):
            return False
        return (found.kind == "directory") is self.tree.get(path)

    @invariant()
    def data_link_names_what_is_shown(self) -> None:
        """``..data`` leads to the generation that was swung to, and all its files are there."""
        assert self.volume.table.shown == self.shown
        link = self.volume.node("..data")
        assert self.volume.table.link_target(link) == b"..%d" % self.shown
        if not self.rotating or self.done != len(self.steps) + 1:
            with pytest.raises(NoSuchName):
                self.volume.node("..data_tmp")

    @invariant()
    def generations_have_their_own_bytes(self) -> None:
        """Whatever is kept reads as it was sealed, by its own nodes."""
        table = self.volume.table
        for number in table.generations:
            for path, content in self.contents[number].items():
                _, local = split(self.volume.node(path, joined(number, ROOT_NODE)))
                assert table.read(number, local, 0, 99) == content

    @invariant()
    def live_files_show_the_current_content(self) -> None:
        """An open of a live file that has not gone is of the newest generation."""
        table = self.volume.table
        for path, content in self.contents[table.current].items():
            if self.tree.get(path) is False:
                number, entry = table.file(self.volume.node(path))
                assert (number, table.read(number, entry.node, 0, 99)) == (table.current, content)

    @invariant()
    def known_files_show_their_last_content(self) -> None:
        """A live file that the kernel knows is the current one, or of the last that had it."""
        table = self.volume.table
        for (path, is_directory), node in self.nodes.items():
            if is_directory or node not in self.volume.bound:
                continue
            having = [one for one in table.generations if path in self.contents[one]]
            if not having:
                with pytest.raises(StaleGeneration):
                    table.file(node)
                continue
            last = table.current if table.current in having else max(having)
            number, entry = table.file(node)
            assert number == last
            assert table.read(number, entry.node, 0, 99) == self.contents[last][path]

    @invariant()
    def use_is_what_the_counter_says(self) -> None:
        """A generation is in use exactly while the kernel knows one of its nodes."""
        assert self.volume.in_use() == set(+self.lookups)

    @invariant()
    def table_is_sound(self) -> None:
        """The table's own invariants hold."""
        self.volume.table.check_invariants()

    @override
    def teardown(self) -> None:
        if hasattr(self, "volume"):
            self.volume.close()


TestNames = Names.TestCase
TestNames.settings = settings(report_multiple_bugs=False)

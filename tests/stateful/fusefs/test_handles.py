"""Open files and directories against a model: one open is one version, or an error.

The model remembers for each handle the generation and bytes that its open saw.
"""

from __future__ import annotations

import errno
import os

import attrs
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

from fakes.fuse import answer, errno_of
from fakes.trees import TREES, kinds
from fakes.volumes import CONTEXT, FakeVolume
from fusefs.nodeids import ROOT_NODE, Handle

pytestmark = pytest.mark.timeout(300)  # shrinking a failure takes its time

NUMBERS = st.integers(0, 6)


@attrs.frozen
class OpenFile:
    """A file handle and what its open saw."""

    number: int
    generation: int
    content: bytes


@attrs.frozen
class OpenDirectory:
    """A directory handle and what its opendir saw."""

    number: int
    generation: int
    names: frozenset[str]


class Handles(RuleBasedStateMachine):
    """A handle means the same for ever, to every worker."""

    @initialize(files=TREES)
    def publish(self, files: dict[str, bytes]) -> None:
        """Begin with one generation."""
        self.volume = FakeVolume(files)
        self.contents = {1: files}
        self.files: list[OpenFile] = []
        self.directories: list[OpenDirectory] = []
        self.dropped: set[int] = set()

    # Rotations

    @precondition(lambda self: not self.volume.table.transition)
    @rule(files=TREES)
    def swap(self, files: dict[str, bytes]) -> None:
        """Bring in a generation; its plan is in progress then."""
        self.volume.swap(files)
        self.contents[self.volume.table.current] = files

    @precondition(lambda self: self.volume.table.transition)
    @rule()
    def carry_out(self) -> None:
        """Carry out the plan in progress and end it."""
        for step in self.volume.plan.steps:
            self.volume.ask(step)
        self.volume.link()
        self.volume.swing()
        self.volume.finish()

    @rule(files=TREES)
    def rotate(self, files: dict[str, bytes]) -> None:
        """Bring in a generation from beginning to end."""
        if self.volume.table.transition:
            self.carry_out()
        self.swap(files)
        self.carry_out()

    # Files

    @rule(data=st.data())
    def open_live(self, data: st.DataObject) -> None:
        """Open a live file: the newest content, or the last one where it is about to go."""
        table = self.volume.table
        previous = self.volume.plan.previous if table.transition else table.current
        # Names follow the plan, whose steps have not begun: what is there is the old tree.
        paths = sorted(self.contents[previous])
        if not paths:
            return
        path = data.draw(st.sampled_from(paths), label="path")
        newest = table.current if path in self.contents[table.current] else previous
        info = answer(self.volume.operations.open(self.volume.node(path), os.O_RDONLY, CONTEXT))
        assert info.direct_io
        self.files.append(OpenFile(info.fh, newest, self.contents[newest][path]))

    @rule(data=st.data())
    def open_fixed(self, data: st.DataObject) -> None:
        """Open a file of a generation, listed or not."""
        generation = data.draw(st.sampled_from(sorted(self.volume.table.generations)))
        paths = sorted(self.contents[generation])
        if not paths:
            return
        path = data.draw(st.sampled_from(paths), label="path")
        node = self.volume.node(f"..{generation}/{path}")
        info = answer(self.volume.operations.open(node, os.O_RDONLY, CONTEXT))
        assert info.keep_cache
        self.files.append(OpenFile(info.fh, generation, self.contents[generation][path]))

    @precondition(lambda self: self.files)
    @rule(data=st.data(), offset=NUMBERS, size=NUMBERS)
    def read(self, data: st.DataObject, offset: int, size: int) -> None:
        """Read a part through a handle."""
        handle = data.draw(st.sampled_from(self.files), label="handle")
        if handle.generation not in self.dropped:
            found = answer(self.volume.operations.read(handle.number, offset, size))
            assert found == handle.content[offset:][:size]

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def close_file(self, data: st.DataObject) -> None:
        """Release a handle, also one that has gone stale."""
        handle = data.draw(st.sampled_from(self.files), label="handle")
        self.files.remove(handle)
        answer(self.volume.operations.release(handle.number))

    # Directories

    @rule(data=st.data())
    def open_directory(self, data: st.DataObject) -> None:
        """Open the root, ``..data`` or a directory in it, and remember the names there."""
        table = self.volume.table
        shown = table.shown
        inside = [path for path, is_dir in kinds(self.contents[shown]).items() if is_dir]
        path = data.draw(st.sampled_from(["", *inside]), label="path")
        names = names_in(self.contents[shown], path)
        if data.draw(st.booleans(), label="through ..data"):
            target = table.link_target(self.volume.node("..data")).decode()
            node = self.volume.node(f"{target}/{path}".rstrip("/"))
        else:
            node = self.volume.node(path) if path else ROOT_NODE
            names |= set() if path else {"..data", f"..{shown}"}
        number = answer(self.volume.operations.opendir(node, CONTEXT))
        self.directories.append(OpenDirectory(number, shown, frozenset(names)))

    @precondition(lambda self: self.directories)
    @rule(data=st.data())
    def close_directory(self, data: st.DataObject) -> None:
        """Release a directory handle."""
        handle = data.draw(st.sampled_from(self.directories), label="handle")
        self.directories.remove(handle)
        answer(self.volume.operations.releasedir(handle.number))

    # Workers and retention

    @rule()
    def restart(self) -> None:
        """Replace the worker, after the request that counts the last release."""
        self.volume.in_use()
        self.volume.restart()

    @rule(forced=st.booleans())
    def drop_all(self, *, forced: bool) -> None:
        """Let go of every generation that may go, or of all but the needed."""
        table = self.volume.table
        spared = {table.current, self.volume.plan.previous}
        offered = [number for number in table.generations if number not in spared]
        gone = self.volume.drop(offered, forced=forced)
        assert forced or not self.opened() & set(gone)
        assert not forced or gone == offered
        self.dropped.update(gone)

    def opened(self) -> set[int]:
        """Return the generations that open handles are of."""
        files = {handle.generation for handle in self.files}
        return files | {handle.generation for handle in self.directories}

    # What always holds

    @invariant()
    def open_files_read_as_when_opened(self) -> None:
        """Every open file has its own bytes, or is stale after a forced drop: never others."""
        for handle in self.files:
            if handle.generation in self.dropped:
                assert errno_of(self.volume.operations.read(handle.number, 0, 99)) == errno.ESTALE
            else:
                found = answer(self.volume.operations.read(handle.number, 0, 99))
                assert found == handle.content

    @invariant()
    def open_directories_list_as_when_opened(self) -> None:
        """A listing is of one generation, whatever happened since its opendir."""
        for opened in self.directories:
            if opened.generation not in self.dropped:
                handle = Handle.unpack(opened.number)
                listing = self.volume.table.listing(
                    handle.generation, handle.local, live=handle.live
                )
                assert {name.decode() for name, _ in listing} == opened.names

    @invariant()
    def data_link_is_one_consistent_set(self) -> None:
        """All files reached through one ``..data`` are of one generation, and complete."""
        table = self.volume.table
        directory = self.volume.node(table.link_target(self.volume.node("..data")).decode())
        found = {}
        for path in self.contents[table.shown]:
            generation, entry = table.file(self.volume.node(path, directory))
            assert generation == table.shown
            found[path] = table.read(generation, entry.node, 0, 99)
        assert found == self.contents[table.shown]

    @invariant()
    def open_handles_keep_their_generation(self) -> None:
        """What is open is in use; what is neither open nor linked is not."""
        opened = self.opened()
        linked = {node >> 24 for node in self.volume.links}
        assert self.volume.in_use() - linked == opened - self.dropped - linked

    @invariant()
    def table_is_sound(self) -> None:
        """The table's own invariants hold."""
        self.volume.table.check_invariants()

    @override
    def teardown(self) -> None:
        if hasattr(self, "volume"):
            self.volume.close()


def names_in(files: dict[str, bytes], directory: str) -> set[str]:
    """Return the names directly in a directory."""
    prefix = f"{directory}/" if directory else ""
    return {
        path.removeprefix(prefix)
        for path in kinds(files)
        if path.startswith(prefix) and "/" not in path.removeprefix(prefix)
    }


TestHandles = Handles.TestCase
TestHandles.settings = settings(report_multiple_bugs=False)

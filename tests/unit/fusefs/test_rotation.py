"""Handlers, called as pyfuse3 would: the operations of a plan in progress, and nothing else."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pyfuse3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.fuse import answer, errno_of
from fakes.trees import TREES, apply_step, kinds
from fakes.volumes import CONTEXT, FakeVolume, volume_of
from fusefs.errors import NoSuchName, NotADirectoryNode
from fusefs.nodeids import ROOT_NODE, Handle
from fusefs.plan import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BEFORE = {"a": b"one", "b": b"", "d/x": b"old"}
AFTER = {"a": b"uno", "b": b"", "c": b"new", "e/y": b""}
LINK = (ROOT_NODE, b"..data_tmp", b"..2")
SWING = (ROOT_NODE, b"..data_tmp", ROOT_NODE, b"..data")
STEPS = ["create c", "mkdir e", "create e/y", "unlink d/x", "rmdir d"]


@pytest.fixture
def volume() -> Iterator[FakeVolume]:
    """Return a volume with the plan from BEFORE to AFTER in progress."""
    with volume_of(BEFORE) as made:
        made.swap(AFTER)
        yield made


def visible(volume: FakeVolume, paths: Iterable[str]) -> set[str]:
    """Return which of `paths` a walk finds."""
    found = set()
    for path in paths:
        try:
            volume.node(path)
        except (NoSuchName, NotADirectoryNode):
            continue
        found.add(path)
    return found


def carry_out(volume: FakeVolume, steps: int) -> None:
    """Carry out the first steps of the plan in progress."""
    for step in volume.plan.steps[:steps]:
        volume.ask(step)


def test_plan_of_these_tests_has_all_kinds(volume: FakeVolume) -> None:
    """The example creates and removes files and directories, and changes a file."""
    assert [f"{step.kind} {step.path}" for step in volume.plan.steps] == STEPS
    assert volume.plan.changed == ("a",)


@given(before=TREES, after=TREES, data=st.data())
def test_names_follow_the_operations(
    before: dict[str, bytes], after: dict[str, bytes], data: st.DataObject
) -> None:
    """At each step, repeated or over a new worker, a walk finds what the kernel was told."""
    with volume_of(before) as made:
        plan = made.swap(after)
        tree = kinds(before)
        for step in plan.steps:
            for _ in range(data.draw(st.integers(1, 2), label="times")):
                made.ask(step)
            if data.draw(st.booleans(), label="restart"):
                made.restart()
            apply_step(tree, step)
            assert visible(made, {**kinds(before), **kinds(after)}) == set(tree)
        made.link()
        made.swing()
        made.finish()
        assert visible(made, {**kinds(before), **kinds(after)}) == set(kinds(after))


@pytest.mark.parametrize("done", range(len(STEPS)))
def test_later_steps_must_wait_for_their_turn(volume: FakeVolume, done: int) -> None:
    """A step is accepted when all before it are done, not earlier; again is fine."""
    carry_out(volume, done)
    for later in volume.plan.steps[done + 1 :]:
        with pytest.raises((pyfuse3.FUSEError, NoSuchName)):
            volume.ask(later)
    for step in volume.plan.steps[: done + 1]:
        if step.kind != "create" or step.path != "e/y" or done >= 2:
            volume.ask(step)


@pytest.mark.parametrize(
    "step",
    [
        Step("create", "x"),
        Step("mkdir", "c"),
        Step("create", "d/c"),
        Step("unlink", "a"),
        Step("unlink", "c"),
        Step("rmdir", "e"),
        Step("unlink", "d"),
        Step("create", "..data"),
        Step("unlink", "..data"),
    ],
)
def test_operations_outside_the_plan_are_refused(volume: FakeVolume, step: Step) -> None:
    """Another name, another kind, or the contrary of a step is EROFS, whatever is done."""
    for done in (0, 2, len(STEPS)):
        carry_out(volume, done)
        if step.path == "d/c" and done == len(STEPS):
            continue  # the directory is gone
        with pytest.raises(pyfuse3.FUSEError) as caught:
            volume.ask(step)
        assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize("parent", ["..1", "..2", "..1/d"])
def test_generations_take_part_in_no_plan(volume: FakeVolume, parent: str) -> None:
    """What belongs to one generation is not changed by the plan of another."""
    where = volume.node(parent)
    for name in (b"c", b"x"):
        create = volume.operations.create(where, name, 0o444, os.O_WRONLY, CONTEXT)
        assert errno_of(create) == errno.EROFS
        assert errno_of(volume.operations.unlink(where, name, CONTEXT)) == errno.EROFS


def test_link_and_rename_swing_the_data_link(volume: FakeVolume) -> None:
    """``..data`` names the old generation until RENAME, and from then on the new one."""
    carry_out(volume, len(STEPS))
    old, new = volume.table.data_link(1), volume.table.data_link(2)
    assert volume.node("..data") == old
    volume.link()
    assert (volume.node("..data"), volume.node("..data_tmp")) == (old, new)
    volume.restart()
    assert (volume.node("..data"), volume.node("..data_tmp")) == (old, new)
    volume.swing()
    assert volume.node("..data") == new
    assert visible(volume, ["..data_tmp"]) == set()
    volume.restart()
    assert volume.node("..data") == new
    volume.finish()
    assert volume.node("..data") == new


def test_link_is_refused_before_all_steps(volume: FakeVolume) -> None:
    """``..data`` must not swing to names that cannot be found yet."""
    for done in range(len(STEPS)):
        carry_out(volume, done)
        assert errno_of(volume.operations.symlink(*LINK, CONTEXT)) == errno.EROFS
        assert errno_of(volume.operations.rename(*SWING, 0, CONTEXT)) == errno.EROFS


@pytest.mark.parametrize(
    ("parent", "name", "target"),
    [
        pytest.param(ROOT_NODE, b"..data_tmp", b"..1", id="old-target"),
        pytest.param(ROOT_NODE, b"..data_tmp", b"/etc", id="other-target"),
        pytest.param(ROOT_NODE, b"..data", b"..2", id="other-name"),
        pytest.param(ROOT_NODE, b"x", b"..2", id="plain-name"),
        pytest.param(2, b"..data_tmp", b"..2", id="other-parent"),
    ],
)
def test_other_links_are_refused(
    volume: FakeVolume, parent: int, name: bytes, target: bytes
) -> None:
    """The one link of a plan is to its own generation, under its temporary name."""
    carry_out(volume, len(STEPS))
    assert errno_of(volume.operations.symlink(parent, name, target, CONTEXT)) == errno.EROFS


@pytest.mark.parametrize(
    "names",
    [
        pytest.param((ROOT_NODE, b"..data", ROOT_NODE, b"..data_tmp"), id="back"),
        pytest.param((ROOT_NODE, b"a", ROOT_NODE, b"b"), id="files"),
        pytest.param((ROOT_NODE, b"..data_tmp", ROOT_NODE, b"a"), id="over-a-file"),
        pytest.param((ROOT_NODE, b"..data_tmp", 2, b"..data"), id="other-parent"),
    ],
)
def test_other_renames_are_refused(
    volume: FakeVolume, names: tuple[int, bytes, int, bytes]
) -> None:
    """The one rename of a plan is of the temporary link over ``..data``."""
    carry_out(volume, len(STEPS))
    volume.link()
    assert errno_of(volume.operations.rename(*names, 0, CONTEXT)) == errno.EROFS


def test_repeated_operations_are_accepted(volume: FakeVolume) -> None:
    """A worker may die between doing and answering, so each operation may come twice."""
    carry_out(volume, len(STEPS))
    for _ in range(2):
        volume.link()
        volume.restart()
    assert volume.node("..data_tmp") == volume.table.data_link(2)
    for _ in range(2):
        volume.swing()
        volume.restart()
    assert volume.node("..data") == volume.table.data_link(2)


def test_link_after_the_rename_exists(volume: FakeVolume) -> None:
    """A second touch child finds the work done; a link accepted now could never be found."""
    carry_out(volume, len(STEPS))
    volume.link()
    volume.swing()
    assert errno_of(volume.operations.symlink(*LINK, CONTEXT)) == errno.EEXIST
    assert visible(volume, ["..data_tmp"]) == set()


def test_nothing_is_accepted_after_the_plan(volume: FakeVolume) -> None:
    """When the plan is finished, its own operations are EROFS like all others."""
    carry_out(volume, len(STEPS))
    volume.link()
    volume.swing()
    volume.finish()
    operations = volume.operations
    refused: list[Callable[[], Any]] = [
        lambda: operations.create(ROOT_NODE, b"c", 0o444, os.O_WRONLY, CONTEXT),
        lambda: operations.symlink(*LINK, CONTEXT),
        lambda: operations.rename(*SWING, 0, CONTEXT),
        lambda: operations.open(volume.node("a"), os.O_WRONLY, CONTEXT),
    ]
    assert [errno_of(one()) for one in refused] == [errno.EROFS] * len(refused)


def test_changed_files_can_be_touched(volume: FakeVolume) -> None:
    """A changed live file opens for writing; what is written is thrown away."""
    info = answer(volume.operations.open(volume.node("a"), os.O_WRONLY, CONTEXT))
    assert answer(volume.operations.write(info.fh, 0, b"\n")) == 1
    assert answer(volume.operations.read(info.fh, 0, 9)) == b"uno"
    volume.restart()
    assert answer(volume.operations.write(info.fh, 0, b"\n")) == 1
    assert 2 in volume.in_use()
    answer(volume.operations.release(info.fh))
    assert 2 not in volume.in_use()


@pytest.mark.parametrize("path", ["b", "..1/a", "..2/a"])
def test_other_files_cannot_be_touched(volume: FakeVolume, path: str) -> None:
    """Neither an unchanged file nor one of a generation opens for writing."""
    assert errno_of(volume.operations.open(volume.node(path), os.O_WRONLY, CONTEXT)) == errno.EROFS


def test_created_file_is_complete_at_once(volume: FakeVolume) -> None:
    """CREATE answers with the content's size, since nobody will write it."""
    create = volume.operations.create(ROOT_NODE, b"c", 0o444, os.O_WRONLY, CONTEXT)
    info, entry = answer(create)
    assert (entry.st_size, entry.st_ino) == (3, volume.node("c"))
    assert Handle.unpack(info.fh).writing
    answer(volume.operations.release(info.fh))
    assert volume.in_use() == set()


def test_new_opens_see_the_new_content_at_once(volume: FakeVolume) -> None:
    """After the swap each open of a live file is of the new generation."""
    info = answer(volume.operations.open(volume.node("a"), os.O_RDONLY, CONTEXT))
    assert answer(volume.operations.read(info.fh, 0, 9)) == b"uno"
    assert answer(volume.operations.getattr(volume.node("a"), CONTEXT)).st_mtime_ns == 2


def test_new_directory_can_be_listed_at_once(volume: FakeVolume) -> None:
    """A watcher that learns of a directory opens it before ``..data`` has swung."""
    carry_out(volume, 3)
    handle = answer(volume.operations.opendir(volume.node("e"), CONTEXT))
    assert Handle.unpack(handle).generation == 2
    root = answer(volume.operations.opendir(ROOT_NODE, CONTEXT))
    assert Handle.unpack(root).generation == 1


class Listing:
    """Takes entries as the kernel's buffer does, until it is full."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.entries: dict[str, pyfuse3.EntryAttributes] = {}
        self.next_id = 0

    def __call__(self, _: object, name: bytes, entry: pyfuse3.EntryAttributes, then: int) -> bool:
        """Take an entry if there is room."""
        if len(self.entries) == self.room:
            return False
        self.entries[name.decode()] = entry
        self.next_id = then
        return True


def listed(
    volume: FakeVolume,
    handle: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    room: int = 100,
    start: int = 0,
) -> Listing:
    """Return what READDIR answers."""
    listing = Listing(room)
    monkeypatch.setattr(pyfuse3, "readdir_reply", listing)
    token: Any = None
    answer(volume.operations.readdir(handle, start, token))
    return listing


def test_listing_goes_on_where_it_stopped(
    volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffers of any size give every name once, and count only what was taken."""
    handle = answer(volume.operations.opendir(volume.node("..2"), CONTEXT))
    names: list[str] = []
    start = 0
    while (part := listed(volume, handle, monkeypatch, room=2, start=start)).entries:
        names.extend(part.entries)
        start = part.next_id
    assert names == ["a", "b", "c", "e"]
    answer(volume.operations.releasedir(handle))
    nodes = [(volume.node(f"..2/{name}"), 1) for name in names]
    answer(volume.operations.forget(nodes[:-1]))
    assert 2 in volume.in_use()
    answer(volume.operations.forget(nodes[-1:]))
    assert 2 not in volume.in_use()


def test_old_listing_does_not_revive_a_name(
    volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing may name what is gone by now, but the kernel must not cache such an entry."""
    handle = answer(volume.operations.opendir(ROOT_NODE, CONTEXT))
    carry_out(volume, len(STEPS))
    volume.link()
    volume.swing()
    entries = listed(volume, handle, monkeypatch).entries
    assert list(entries) == ["..data", "..1", "a", "b", "d"]
    lasting = {name for name, entry in entries.items() if entry.entry_timeout}
    assert lasting == {"..1", "a", "b"}


def test_listing_has_what_stat_shows(volume: FakeVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    """READDIRPLUS fills the kernel's caches: an entry is what a look-up would have answered."""
    handle = answer(volume.operations.opendir(ROOT_NODE, CONTEXT))
    entries = listed(volume, handle, monkeypatch).entries
    assert entries["a"].st_size == 3
    assert entries["a"].st_mtime_ns == 2
    assert entries["..data"].st_ino == volume.node("..data")

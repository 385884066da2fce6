"""The touch child's work, on a plain directory that stands for the private mount."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.trees import TREES, kinds
from fusefs import initmsg, touch
from fusefs.loop import Loop
from fusefs.nodeids import PRIME_NAME, ROOT_NODE
from fusefs.plan import Plan, steps_between
from fusefs.touch import ACKNOWLEDGED, MAX_REPORT_BYTES, Report

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def mount_of(files: dict[str, bytes]) -> Iterator[Path]:
    """Make a directory that shows generation 1 the working directory."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        place = Path(name)
        for path, content in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(content)
        (place / "..data").symlink_to("..1")
        yield place


@contextlib.contextmanager
def reports() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the child's and the keeper's end of the report."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, ours:
        ours.settimeout(5)
        yield theirs, ours


def tree_at(place: Path) -> dict[str, bool]:
    """Return every path below `place` and whether it is a directory, without the links."""
    found = (path for path in place.rglob("*") if not path.is_symlink())
    return {str(path.relative_to(place)): path.is_dir() for path in found}


def plan_between(before: dict[str, bytes], after: dict[str, bytes]) -> Plan:
    """Return the plan from one tree to the next."""
    return Plan(generation=2, previous=1, steps=steps_between(kinds(before), kinds(after)))


@given(before=TREES, after=TREES)
def test_plan_is_carried_out_and_acknowledged(
    before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    """Every name follows the plan, ``..data`` swings, and the keeper hears of it then."""
    with mount_of(before) as place, reports() as (theirs, ours):
        touch.carry_out(plan_between(before, after), theirs)
        assert tree_at(place) == kinds(after)
        assert os.readlink("..data") == "..2"  # noqa: PTH115 - relative, as it stands there
        assert ours.recv(100) == ACKNOWLEDGED


@given(before=TREES, after=TREES, data=st.data())
def test_second_child_finishes_the_work(
    before: dict[str, bytes], after: dict[str, bytes], data: st.DataObject
) -> None:
    """A child that starts anew gets through, wherever the one before it had ended."""
    plan = plan_between(before, after)
    done = data.draw(st.integers(0, len(plan.steps)), label="done")
    with mount_of(before) as place, reports() as (theirs, ours):
        touch.carry_out(Plan(generation=2, previous=1, steps=plan.steps[:done]), theirs)
        if not data.draw(st.booleans(), label="swung"):
            Path("..data").unlink()
            Path("..data").symlink_to("..1")
        touch.carry_out(plan, theirs)
        assert tree_at(place) == kinds(after)
        assert os.readlink("..data") == "..2"  # noqa: PTH115
        assert [ours.recv(100) for _ in range(2)] == [ACKNOWLEDGED] * 2


def test_link_of_a_dead_child_is_used() -> None:
    """A temporary link that is there already is the one to rename."""
    with mount_of({"a": b""}) as place, reports() as (theirs, _):
        (place / "..data_tmp").symlink_to("..2")
        touch.carry_out(plan_between({"a": b""}, {"a": b""}), theirs)
        assert str((place / "..data").readlink()) == "..2"
        assert not (place / "..data_tmp").is_symlink()


def test_refused_operation_ends_the_child() -> None:
    """What cannot be done is not acknowledged: the keeper tries again."""
    with mount_of({"a": b""}) as place, reports() as (theirs, ours):
        (place / "..data").unlink()
        (place / "..data").mkdir()
        (place / "..data" / "x").touch()
        with pytest.raises(OSError, match=r"\.\.data"):
            touch.carry_out(plan_between({"a": b""}, {"a": b""}), theirs)
        ours.settimeout(0)
        with pytest.raises(BlockingIOError):
            ours.recv(100)


def test_each_changed_file_gets_one_byte() -> None:
    """One byte is written to each file, which a worker throws away; missing files are fine."""
    with mount_of({"a": b"12", "d/b": b"12", "c": b"12"}) as place, reports() as (theirs, ours):
        touch.notify(["a", "d/b", "gone"], theirs)
        sizes = {path: (place / path).read_bytes() for path in ("a", "d/b", "c")}
        assert sizes == {"a": b"\n2", "d/b": b"\n2", "c": b"12"}
        assert msgspec.msgpack.decode(ours.recv(100)) == []


def test_leased_files_are_reported_busy() -> None:
    """A file on which somebody holds a lease is not waited for; the keeper hears which."""
    with mount_of({"a": b"", "b": b""}) as place, reports() as (theirs, ours):
        with (place / "a").open("rb") as leased:
            fcntl.fcntl(leased, fcntl.F_SETSIG, signal.SIGURG)  # ignored by default
            fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            touch.notify(["a", "b"], theirs)
        assert msgspec.msgpack.decode(ours.recv(100)) == ["a"]
        assert (place / "b").read_bytes() == b"\n"


def test_running_program_is_reported_busy() -> None:
    """A file that a pod executes cannot be opened for writing; its event comes later."""
    with mount_of({}) as place, reports() as (theirs, ours):
        shutil.copy("/bin/cat", place / "program")
        with subprocess.Popen([place / "program"], stdin=subprocess.PIPE) as running:
            touch.notify(["program"], theirs)
            assert running.stdin is not None
            running.stdin.close()
        assert msgspec.msgpack.decode(ours.recv(100)) == ["program"]


def test_file_that_takes_no_event_is_given_up(announced: list[str]) -> None:
    """What cannot be opened at all is logged, and does not hold up the others."""
    announced.append("no event for a changed file: Is a directory")
    with mount_of({"d/a": b"", "b": b""}) as place, reports() as (theirs, ours):
        touch.notify(["d", "b"], theirs)
        assert msgspec.msgpack.decode(ours.recv(100)) == []
        assert (place / "b").read_bytes() == b"\n"


def test_too_many_busy_files_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that would not fit one packet is an empty one."""
    monkeypatch.setattr(touch, "_write_one_byte", lambda _: False)
    paths = [f"{number:04}-{'x' * 200}" for number in range(MAX_REPORT_BYTES // 200)]
    with reports() as (theirs, ours):
        touch.notify(paths, theirs)
        assert msgspec.msgpack.decode(ours.recv(100)) == []
        touch.notify(paths[:100], theirs)
        assert msgspec.msgpack.decode(ours.recv(MAX_REPORT_BYTES)) == paths[:100]


def test_old_generations_are_forgotten_by_name() -> None:
    """Each name is invalidated by its own notification."""
    reading, writing = os.pipe()
    try:
        touch.forget_generations(writing, [1, 12])
        expected = [initmsg.invalidate_entry(ROOT_NODE, name) for name in (b"..1", b"..12")]
        assert os.read(reading, 1000) == b"".join(expected)
    finally:
        os.close(reading)
        os.close(writing)


def test_unknown_names_need_no_forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel answers ENOENT for a name that it does not know, which is as good."""
    told = []

    def write(_: int, data: bytes) -> int:
        told.append(data)
        raise FileNotFoundError(errno.ENOENT, "x")

    monkeypatch.setattr(touch.os, "write", write)  # type: ignore[attr-defined]  # its module
    touch.forget_generations(3, [1, 2])
    assert len(told) == 2


def test_priming_asks_everything_once() -> None:
    """Priming gets through also where the extended attribute is refused."""
    with mount_of({PRIME_NAME.decode(): b""}):
        assert touch.prime() == 0


def test_priming_without_its_file_fails() -> None:
    """A mount that does not answer for the hidden file is not primed."""
    with mount_of({}), pytest.raises(FileNotFoundError):
        touch.prime()


class FakeChild:
    """A touch child that says what a test tells it, and the keeper's report of it."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.acknowledged = 0
        self.report = Report(self.loop, self._acknowledge)
        self.end = self.report.child_end.dup()
        self.report.close_child_end()

    def _acknowledge(self) -> None:
        self.acknowledged += 1

    def close(self) -> None:
        """End the child and the keeper."""
        self.end.close()
        self.report.finish()
        self.loop.close()


@pytest.fixture
def child() -> Iterator[FakeChild]:
    """Return a child that has said nothing yet."""
    made = FakeChild()
    yield made
    made.close()


def test_report_acknowledges_before_the_end(child: FakeChild) -> None:
    """The acknowledgement is passed on as soon as it is read, once."""
    child.end.send(ACKNOWLEDGED)
    child.loop.call_later(0.0, child.loop.stop)
    child.loop.run()
    assert child.acknowledged == 1
    assert child.report.busy is None


def test_report_is_read_to_its_end(child: FakeChild) -> None:
    """What the child said and nobody read before it ended still counts."""
    child.end.send(ACKNOWLEDGED)
    touch.notify([], child.end)
    child.end.close()
    child.report.finish()
    child.report.finish()
    assert child.acknowledged == 1
    assert child.report.busy == ()


def test_silent_child_reports_nothing(child: FakeChild) -> None:
    """A child that was killed acknowledged nothing and named no busy file."""
    child.end.close()
    child.report.finish()
    assert child.acknowledged == 0
    assert child.report.busy is None

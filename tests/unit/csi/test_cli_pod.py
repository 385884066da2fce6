"""The container that the demo plays, on plain folders: routes, held reads, events, readers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from csi.cli import inotify, pod
from csi.cli.podorders import (
    AnyOrder,
    AwaitContent,
    AwaitEvents,
    CountReads,
    Finish,
    Happened,
    Hold,
    Part,
    Reads,
    StartReaders,
    StopReaders,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Return a folder that looks like a volume with one file, `key`."""
    target = tmp_path / "mount"
    (target / "..1").mkdir(parents=True)
    (target / "..data").symlink_to("..1")
    (target / "..1" / "key").write_text("first value")
    (target / "key").write_text("first value")
    (tmp_path / "bound").write_text("first value")
    return target


@pytest.fixture
def container(volume: Path) -> pod.Pod:
    """Return a pod with the volume; the bound file is a plain one beside it."""
    return pod.Pod(volume, "key", volume.parent / "bound")


def test_held_file_is_read_to_its_end(container: pod.Pod, volume: Path) -> None:
    """Both halves come from what was open, whatever the path leads to by then."""
    first = container.carry_out(Hold())
    (volume / "new").write_text("second value")
    (volume / "new").rename(volume / "key")
    second = container.carry_out(Finish())
    assert isinstance(first, Part)
    assert isinstance(second, Part)
    assert first.text + second.text == "first value"


def test_watchers_tell_what_happened(container: pod.Pod, volume: Path) -> None:
    """Each watch has its own events: of the file, of the bound file, of the folder with names."""
    (volume / "..data_tmp").symlink_to("..2")
    (volume / "..data_tmp").rename(volume / "..data")
    for path in (volume / "key", volume.parent / "bound"):
        path.write_text("second value")
    happened = container.carry_out(AwaitEvents(5.0))
    assert isinstance(happened, Happened)
    assert "MODIFY" in happened.events[pod.FILE]
    assert "MODIFY" in happened.events[pod.BIND]
    assert {"CREATE ..data_tmp", "MOVED_TO ..data"} <= set(happened.events[pod.DIRECTORY])


def test_quiet_watch_has_no_events(container: pod.Pod) -> None:
    """After the time is up the answer is empty, not an error."""
    happened = container.carry_out(AwaitEvents(0.01))
    assert isinstance(happened, Happened)
    assert set(map(tuple, happened.events.values())) == {()}


def test_readers_count_and_judge_every_read(container: pod.Pod) -> None:
    """Reads of the expected content are completed, and there are no failures."""
    container.carry_out(StartReaders("first value", 4))
    counted = container.carry_out(CountReads())
    reads = container.carry_out(StopReaders())
    assert isinstance(counted, Reads)
    assert isinstance(reads, Reads)
    assert reads.begun == reads.completed >= counted.completed
    assert reads.failures == []


def test_other_content_is_a_failure(container: pod.Pod) -> None:
    """A reader that sees something else says so."""
    container.carry_out(StartReaders("another value", 1))
    reads = container.carry_out(StopReaders())
    assert isinstance(reads, Reads)
    assert set(reads.failures) <= {"other content"}
    assert len(reads.failures) == reads.completed


def test_failed_open_is_a_failure() -> None:
    """An error of the kernel is counted with its name."""

    def refuse() -> int:
        raise ConnectionAbortedError(103, os.strerror(103))

    readers = pod.Readers([refuse], "value", 1)
    while not readers.report().failures:
        pass
    readers.stop()
    report = readers.report()
    assert set(report.failures) == {os.strerror(103)}
    assert report.completed == 0


def test_counting_without_readers_is_zero(container: pod.Pod) -> None:
    """Nobody reads before it is told to."""
    assert container.carry_out(CountReads()) == Reads(
        begun=0, completed=0, failures=[], longest_gap=0.0
    )


@pytest.mark.parametrize(
    "order",
    [Hold(), Finish(), AwaitContent("v", 1.0), StartReaders("v", 2), StopReaders()],
)
def test_orders_survive_the_pipe(order: AnyOrder) -> None:
    """What is sent is what arrives."""
    assert msgspec.json.decode(msgspec.json.encode(order), type=AnyOrder) == order


def test_event_buffer_is_read_whole() -> None:
    """Several events, with padded names and several bits, come out in order."""
    header = (1).to_bytes(4, "little")
    buffer = (
        *(header, (0x102).to_bytes(4, "little"), bytes(4), (8).to_bytes(4, "little")),
        *(b"name\0\0\0\0", header, (0x40000080).to_bytes(4, "little"), bytes(8)),
    )
    assert inotify.parse(b"".join(buffer)) == ["MODIFY name", "CREATE name", "MOVED_TO"]


def test_missing_file_cannot_be_watched(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(FileNotFoundError, match="missing"):
        inotify.Watcher(tmp_path / "missing")

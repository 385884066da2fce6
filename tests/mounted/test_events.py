"""Inotify: rotations are seen by watchers on every path a pod has."""

from __future__ import annotations

import fcntl
import os
import signal
from typing import TYPE_CHECKING

import trio

from fusefs.snapshot import FileSpec
from harness.inotify import Event, Watcher
from harness.volumes import bind_file, content, specs

if TYPE_CHECKING:
    from pathlib import Path

    from harness.volumes import PublishedVolume


async def test_watchers_hear_of_a_rotation(published: PublishedVolume, tmp_path: Path) -> None:
    """A changed file tells its directory, itself and its bind; ``..data`` is moved into place."""
    with (
        bind_file(published.target / "user", tmp_path / "bound") as bound,
        Watcher() as watcher,
        Watcher() as of_bind,  # of the same inode, so in a watcher of its own
    ):
        watcher.watch(published.target, "top")
        watcher.watch(published.target / "user", "file")
        of_bind.watch(bound, "bind")
        await published.rotate()
        events = watcher.wait_for(
            {
                Event("top", "MODIFY", "user"),
                Event("top", "CLOSE_WRITE", "user"),
                Event("file", "CLOSE_WRITE", ""),
                Event("top", "CREATE", "..data_tmp"),
                Event("top", "MOVED_TO", "..data"),
            }
        )
        of_bind.wait_for({Event("bind", "MODIFY", ""), Event("bind", "CLOSE_WRITE", "")})
        assert events.count(Event("top", "CLOSE_WRITE", "user")) == 1
        assert published.target.joinpath("user").read_bytes() == content("user", 2)


async def test_events_come_after_the_content(published: PublishedVolume) -> None:
    """Whoever reads at once when told of a change reads the new content."""
    with Watcher() as watcher:
        watcher.watch(published.target / "user", "file")
        for _ in range(10):
            generation = await published.rotate()
            await trio.to_thread.run_sync(watcher.wait_for, {Event("file", "MODIFY", "")})
            assert (published.target / "user").read_bytes() == content("user", generation)
            watcher.read()


async def test_only_changed_files_raise_events(published: PublishedVolume) -> None:
    """A file that a rotation leaves as it was raises no event."""
    with Watcher() as watcher:
        watcher.watch(published.target / "user", "user")
        watcher.watch(published.target / "pass", "pass")
        await published.rotate([*specs(1, ["user", "nest/deep/cert"]), *specs(2, ["pass"])])
        watcher.wait_for({Event("pass", "CLOSE_WRITE", "")})
        await published.rotate([*specs(1, ["user", "nest/deep/cert"]), *specs(3, ["pass"])])
        events = watcher.wait_for({Event("pass", "CLOSE_WRITE", "")})
        assert not [event for event in events if event.watched == "user"]


async def test_new_and_removed_names_raise_events(published: PublishedVolume) -> None:
    """A watcher of the directory hears of names that appear and go."""
    with Watcher() as watcher:
        watcher.watch(published.target, "top")
        await published.rotate([*specs(1, ["user"]), FileSpec(path="new", content=b"x")])
        watcher.wait_for({Event("top", "CREATE", "new"), Event("top", "DELETE", "pass")})


async def test_lease_holder_does_not_delay_a_rotation(published: PublishedVolume) -> None:
    """A pod that holds a read lease on a file gets its event once it lets go, not sooner."""
    signal.signal(signal.SIGIO, lambda *_: None)
    fd = os.open(published.target / "user", os.O_RDONLY)
    with Watcher() as watcher:
        watcher.watch(published.target / "user", "file")
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        with trio.fail_after(2):
            generation = await published.rotate()
        assert (published.target / "user").read_bytes() == content("user", generation)
        assert Event("file", "CLOSE_WRITE", "") not in watcher.read()
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(fd)
        await trio.to_thread.run_sync(watcher.wait_for, {Event("file", "CLOSE_WRITE", "")})

"""How a tmpfs volume's effects are carried out: real targets and children, a plain directory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.trees import specs
from fusefs import atomicwriter, children, effects, protocol, tmpfshost
from fusefs.basehost import Owner, Place
from fusefs.errors import InvalidMessage, TargetRefused, VolumeFailed, VolumeUnknown
from fusefs.kept import KeptGenerations
from fusefs.loop import Loop
from fusefs.snapshot import Sealed, seal
from fusefs.target import KubeletRoot, Target
from fusefs.tmpfshost import TmpfsHost
from fusefs.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fusefs.snapshot import Snapshot

BELOW = "pods/uid-1/volumes/kubernetes.io~csi/secrets"
FILES = [{"a": b"one", "b": b""}, {"a": b"two", "c": b""}, {"a": b"three"}]
PUBLISH = effects.Ticket(1, 1)


class FakeTmpfs:
    """Stands for `fusefs.tmpfs.Tmpfs`: a plain directory, which the target does not show."""

    def __init__(self, private: str) -> None:
        self.private = Path(private)
        self.private.mkdir()
        self.shown = False
        self.attached = 0
        self.closed = False

    @classmethod
    def create(cls, private: str, *, selinux_context: str) -> FakeTmpfs:
        """Make a new one."""
        assert selinux_context == "a:b:c"
        return cls(private)

    @classmethod
    def adopt(cls, private: str, target: Target) -> FakeTmpfs:
        """Go on with what the target shows."""
        assert target.path.endswith("/mount")
        found = cls(private)
        found.shown = True
        return found

    def open_mount(self) -> int:
        """Return a descriptor of the directory."""
        return os.open(self.private, os.O_PATH | os.O_DIRECTORY)

    def is_on(self, _: Target) -> bool:
        """Return whether the target shows it."""
        return self.shown

    def attach(self, target: Target) -> None:
        """Show it at the target."""
        os.close(target.open())
        self.attached += 1
        self.shown = True

    def close(self) -> None:
        """Note the end."""
        self.closed = True


def write(snapshot: Snapshot, root: Path) -> None:
    """Write a generation as the tests look for it; what holds a `d` cannot be written."""
    if "d" in snapshot.files:
        raise OSError
    for path in snapshot.files:
        (root / path).write_bytes(snapshot.content(path))


class World:
    """One volume's host, and everything around it that is not the kernel's."""

    def __init__(self, path: Path, *, adopted: bool) -> None:
        self.mount = path / BELOW / "mount"
        self.mount.parent.mkdir(parents=True)
        data = {"driverName": "d", "volumeHandle": "v"}
        (self.mount.parent / "vol_data.json").write_text(json.dumps(data), encoding="utf-8")
        if adopted:
            self.mount.mkdir()
        self.private = path / "private"
        self.loop = Loop()
        self.root = KubeletRoot(str(path))
        self.answers: list[tuple[effects.Ticket, Exception | None]] = []
        self.announced: list[protocol.KeeperNotice] = []
        self.ended: list[str] = []
        self.newest: Sealed | None = None
        self.kept = KeptGenerations()
        self.add(FILES[0])
        self.host = TmpfsHost(
            self.loop,
            Place(slot=0, private=str(self.private), uid=70_000, selinux_context="a:b:c"),
            self.root.target(str(self.mount), volume_id="v", driver="d"),
            self.kept,
            Owner(
                answer=lambda ticket, error: self.answers.append((ticket, error)),
                announce=lambda notice, _: self.announced.append(notice),
                closed=lambda _: self.ended.append("closed"),
                gone=lambda _: self.ended.append("gone"),
            ),
            volume_id="v",
            record=b"record",
            state=Volume(1, PUBLISH),
            reason="",
            adopted=adopted,
        )

    @property
    def tmpfs(self) -> FakeTmpfs:
        """The volume's file system."""
        found = self.host._tmpfs  # noqa: SLF001 - what it owns is what is tested
        assert isinstance(found, FakeTmpfs)
        return found

    def add(self, files: dict[str, bytes]) -> Sealed:
        """Seal and keep the next generation."""
        previous = self.newest.snapshot if self.newest else None
        made = seal(specs(files), previous=previous, now_ns=1)
        if previous:
            previous.close()
        self.keep(made.snapshot)
        self.newest = made
        return made

    def keep(self, snapshot: Snapshot) -> None:
        """Keep a generation, as a request brings it."""
        self.kept.add(snapshot.generation, os.dup(snapshot.fd), snapshot.digest)

    def rotate(self, files: dict[str, bytes]) -> effects.Ticket:
        """Hand in a generation."""
        made = self.add(files)
        generation = made.snapshot.generation
        ticket = effects.Ticket(1, 100 + generation)
        self.host.rotate(effects.Rotation(generation, generation - 1, made.plan, ticket))
        return ticket

    def until(self, happened: Callable[[], object]) -> None:
        """Let the keeper work until something has happened."""
        deadline = self.loop.call_later(10, lambda: pytest.fail("it does not happen"))
        while not happened():
            self.loop.call_later(0.005, self.loop.stop)
            self.loop.run()
        deadline.cancel()

    def publish(self) -> None:
        """Publish from beginning to end."""
        self.host.begin()
        self.until(lambda: self.answers)

    def content(self) -> dict[str, bytes]:
        """Return what was written."""
        return {path.name: path.read_bytes() for path in self.private.iterdir()}

    def close(self) -> None:
        """End the volume if it has not ended."""
        self.host.unpublish()
        self.until(lambda: "gone" in self.ended)
        assert sorted(self.ended) == ["closed", "gone"]
        if self.newest:
            self.newest.snapshot.close()
        self.root.close()
        self.loop.close()


@pytest.fixture
def adopted() -> bool:
    """Say that nothing was found at the target."""
    return False


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, adopted: bool) -> Iterator[World]:
    """Return a volume that has not begun; nothing of it is left in the end (conftest)."""
    monkeypatch.setattr(tmpfshost, "Tmpfs", FakeTmpfs)
    monkeypatch.setattr(atomicwriter, "write", write)
    monkeypatch.setattr(children, "enter", lambda *_, directory, **__: os.fchdir(directory))
    made = World(tmp_path, adopted=adopted)
    yield made
    made.close()


found_at_the_target = pytest.mark.parametrize("adopted", [True])


def test_target_shows_what_was_written(world: World) -> None:
    """The content is written before the target shows it, and only then comes the answer."""
    world.host.begin()
    assert (world.answers, world.tmpfs.shown) == ([], False)
    world.until(lambda: world.answers)
    assert (world.answers, world.tmpfs.attached) == ([(PUBLISH, None)], 1)
    assert world.content() == FILES[0]
    assert (world.host.filesystem, world.host.worker_pid) == ("tmpfs", None)


def test_generations_are_written_in_order(world: World) -> None:
    """Each is answered when it was written, and none before it is kept any longer."""
    world.publish()
    tickets = [world.rotate(files) for files in FILES[1:]]
    world.until(lambda: len(world.answers) == 3)
    assert world.answers[1:] == [(ticket, None) for ticket in tickets]
    assert world.content()["a"] == b"three"
    assert world.kept.generations() == [3]
    assert world.host.memory_bytes == 2 * world.kept.size


def test_unwritten_generation_is_refused(world: World) -> None:
    """It is let go of, and the volume goes on with what it shows."""
    world.publish()
    ticket = world.rotate({"d": b""})
    world.until(lambda: len(world.answers) == 2)
    found, error = world.answers[1]
    assert (found, type(error)) == (ticket, InvalidMessage)
    assert "generation 2 cannot be served" in str(error)
    assert world.kept.generations() == [1]
    world.rotate(FILES[2])
    world.until(lambda: len(world.answers) == 3)
    assert world.answers[2][1] is None


def test_unwritten_first_content_is_answered(world: World) -> None:
    """A publish whose content cannot be written leaves an answer and no target."""
    world.kept.close()
    broken = world.add({"d": b""}).snapshot
    world.kept.add(1, os.dup(broken.fd), broken.digest)
    world.host.begin()
    world.until(lambda: world.answers)
    [(ticket, error)] = world.answers
    assert (ticket, type(error)) == (PUBLISH, VolumeFailed)
    assert not world.mount.exists()
    assert world.tmpfs.closed


def test_obstacle_at_a_tmpfs_target_is_answered(world: World, announced: list[str]) -> None:
    """A file where the volume should be stays."""
    announced.append("ClearTarget failed")
    world.mount.touch()
    world.host.begin()
    [(_, error)] = world.answers
    assert isinstance(error, TargetRefused)
    assert world.mount.is_file()


def test_unpublish_answers_who_waits(world: World) -> None:
    """A volume that goes while it is written leaves nothing, and everybody hears of it."""
    world.publish()
    ticket = world.rotate(FILES[1])
    world.host.unpublish()
    assert [found for found, _ in world.answers] == [PUBLISH, ticket]
    assert isinstance(world.answers[1][1], VolumeUnknown)
    assert not world.mount.exists()
    assert world.tmpfs.closed


def test_frozen_tmpfs_stays_at_its_target(world: World) -> None:
    """The kernel keeps it: there is nothing to fill or to wait for."""
    world.publish()
    world.host.freeze()
    assert "closed" in world.ended
    assert world.mount.exists()


def test_node_server_holds_nothing_of_it(world: World) -> None:
    """Whoever registers is told of no descriptor, since the kernel needs none."""
    world.publish()
    world.host.announce()
    assert world.announced == []


def test_unmounted_tmpfs_is_attached_again(world: World, announced: list[str]) -> None:
    """A repeated publish puts it back."""
    announced.append("the target was unmounted; it is mounted again")
    world.publish()
    world.tmpfs.shown = False
    again = effects.Ticket(2, 1)
    world.host.publish_again(again)
    assert (world.tmpfs.attached, world.answers[-1]) == (2, (again, None))


@found_at_the_target
def test_found_tmpfs_is_written_where_it_is(world: World) -> None:
    """What the target shows already is neither emptied nor mounted over."""
    (world.mount / "theirs").touch()
    world.publish()
    assert world.answers == [(PUBLISH, None)]
    assert (world.tmpfs.attached, world.content()) == (0, FILES[0])
    assert (world.mount / "theirs").exists()
    (world.mount / "theirs").unlink()
    world.host.unpublish()
    assert not world.mount.exists()


@found_at_the_target
def test_failed_adoption_leaves_the_target(world: World) -> None:
    """A pod may be using what was found: it stays as it was."""
    world.kept.close()
    broken = world.add({"d": b""}).snapshot
    world.kept.add(1, os.dup(broken.fd), broken.digest)
    world.host.begin()
    world.until(lambda: world.answers)
    assert isinstance(world.answers[0][1], VolumeFailed)
    assert world.mount.exists()

"""Short-lived children of a volume: deadlines, and what is heard of them at its end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from fusefs import children
from fusefs.children import Children
from fusefs.loop import Loop
from fusefs.sandbox import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Family:
    """Children that need no sandbox, and a keeper that waits for them."""

    def __init__(self, place: Path) -> None:
        self.loop = Loop()
        self.children = Children(self.loop)
        self.codes: list[int] = []
        self.directory = os.open(place, os.O_PATH | os.O_DIRECTORY)

    def start(self, function: Callable[[], int]) -> None:
        """Start a child."""
        self.children.start(
            function, self.ended, directory=self.directory, identity=Identity(uid=1)
        )

    def ended(self, code: int) -> None:
        """Hear of a child's end."""
        self.codes.append(code)
        self.loop.stop()

    def run(self) -> None:
        """Let the keeper work until a child has ended."""
        deadline = self.loop.call_later(10, self.loop.stop)
        self.loop.run()
        deadline.cancel()


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    """Return children that are only moved to their directory."""
    monkeypatch.setattr(children, "enter", lambda *_, directory, **__: os.fchdir(directory))
    made = Family(tmp_path)
    yield made
    os.close(made.directory)
    made.loop.close()


def wait_for_ever() -> int:
    """Do nothing until killed."""
    signal.pause()
    return 0


def test_child_works_in_its_directory(family: Family, tmp_path: Path) -> None:
    """Its result is its exit code, and what it does elsewhere is up to its function."""

    def make() -> int:
        os.mkdir("made")  # noqa: PTH102 - in the child's working directory
        return 7

    family.start(make)
    family.run()
    assert family.codes == [7]
    assert (tmp_path / "made").is_dir()


def test_child_past_its_deadline_is_killed(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that touches a mount may hang in it; the volume goes on."""
    monkeypatch.setattr(children, "DEADLINE_S", 0.01)
    family.start(wait_for_ever)
    family.run()
    assert family.codes == [-signal.SIGKILL]


def test_abandoned_children_are_silent(family: Family) -> None:
    """They are killed, reaped, and not heard of; the last one says that all are gone."""
    for _ in range(3):
        family.start(wait_for_ever)
    gone: list[bool] = []

    def all_gone() -> None:
        gone.append(True)
        family.loop.stop()

    family.children.abandon(all_gone)
    assert gone == []
    family.run()
    assert gone == [True]
    assert family.codes == []


def test_nobody_to_abandon_is_gone_at_once(family: Family) -> None:
    """Where no child runs there is nothing to wait for."""
    gone: list[bool] = []
    family.children.abandon(lambda: gone.append(True))
    assert gone == [True]

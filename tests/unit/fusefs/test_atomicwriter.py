"""A snapshot as files: layout, modes, times, and what is found from before."""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import TYPE_CHECKING, Final

import pytest

from fakes.trees import SECOND_NS
from fusefs.atomicwriter import write
from fusefs.errors import InvalidTree
from fusefs.snapshot import FileSpec, Snapshot, seal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAMP: Final = re.compile(r"^\.\.\d{4}(_\d\d){5}\.\w+$")
GROUP: Final = 2000


class Volume:
    """A directory that shows snapshots, and who was made owner of its directories and links."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.owners: dict[str, tuple[int, int]] = {}
        self.newest: Snapshot | None = None

    def chown(self, path: Path, uid: int, gid: int) -> None:
        """Note an owner, which only root could set."""
        self.owners[str(path.relative_to(self.root))] = (uid, gid)

    def show(self, *files: FileSpec, now_ns: int = SECOND_NS) -> None:
        """Seal files after those before, and write them."""
        sealed = seal(files, previous=self.newest, now_ns=now_ns)
        if self.newest:
            self.newest.close()
        self.newest = sealed.snapshot
        write(self.newest, self.root)

    @property
    def shown(self) -> str:
        """The directory that ``..data`` names."""
        return str((self.root / "..data").readlink())

    def names(self) -> set[str]:
        """Return the names of the top level but that of the directory shown."""
        return {path.name for path in self.root.iterdir()} - {self.shown}


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Volume]:
    """Return an empty directory to write to."""
    made = Volume(tmp_path)
    monkeypatch.setattr(os, "chown", made.chown)
    monkeypatch.setattr(os, "lchown", made.chown)
    yield made
    if made.newest:
        made.newest.close()


def file(path: str, content: bytes = b"x", mode: int = 0o644) -> FileSpec:
    """Return a file of whoever runs the tests, since only root gives files away."""
    return FileSpec(path=path, content=content, mode=mode, uid=os.getuid(), gid=os.getgid())


def test_layout_is_that_of_the_reference(volume: Volume) -> None:
    """A stamped directory, ``..data`` that names it, and one link for each top-level name."""
    volume.show(file("password", b"one"), file("nest/deep/key", b"two"))
    assert STAMP.match(volume.shown)
    assert volume.names() == {"..data", "password", "nest"}
    assert str((volume.root / "password").readlink()) == "..data/password"
    assert str((volume.root / "nest").readlink()) == "..data/nest"
    assert (volume.root / "nest/deep/key").read_bytes() == b"two"


def test_modes_and_times_are_those_of_the_files(volume: Volume) -> None:
    """Modes hold whatever the umask; a file keeps its time while its content stays."""
    volume.show(file("open", mode=0o666), file("shut", b"", mode=0))
    volume.show(file("open", b"new"), file("shut", b"", mode=0), now_ns=7 * SECOND_NS)
    found = {name: (volume.root / name).stat() for name in ("open", "shut")}
    assert stat.S_IMODE(found["shut"].st_mode) == 0
    assert stat.S_IMODE(found["open"].st_mode) == 0o644
    assert found["open"].st_mtime_ns == 7 * SECOND_NS
    assert found["shut"].st_mtime_ns == SECOND_NS
    assert stat.S_IMODE((volume.root / "..data/").stat().st_mode) == 0o755


def test_directories_and_links_belong_to_root(volume: Volume) -> None:
    """Directories have the group of the volume; links belong to root and its group."""
    volume.show(file("a/b"))
    shown, group = volume.shown, os.getgid()
    assert volume.owners == {
        ".": (0, group),
        shown: (0, group),
        f"{shown}/a": (0, group),
        "..data_tmp": (0, 0),
        "a": (0, 0),
    }


def test_same_content_is_not_written_again(volume: Volume) -> None:
    """A generation that shows what is shown leaves every directory and link as it is."""
    volume.show(file("a"), file("b/c"))
    before = (volume.shown, volume.root.stat().st_mtime_ns)
    volume.show(file("b/c"), file("a"))
    assert (volume.shown, volume.root.stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    "files",
    [
        pytest.param([file("a", b"y"), file("b/c")], id="content"),
        pytest.param([file("a", mode=0o600), file("b/c")], id="mode"),
        pytest.param([file("a"), file("b/d")], id="name"),
        pytest.param([file("a"), file("b")], id="kind"),
        pytest.param([file("a")], id="fewer"),
        pytest.param([], id="none"),
    ],
)
def test_any_difference_is_written(volume: Volume, files: list[FileSpec]) -> None:
    """What differs in anything that a pod can see is written anew, and the old one goes."""
    volume.show(file("a"), file("b/c"))
    before = volume.shown
    volume.show(*files)
    assert volume.shown != before
    assert not (volume.root / before).exists()
    assert volume.names() == {"..data", *(spec.path.partition("/")[0] for spec in files)}


def test_remains_of_a_killed_writer_go(volume: Volume) -> None:
    """Half a generation, and a link that was not swung, are removed; the shown one stays."""
    volume.show(file("a"))
    before = volume.shown
    (volume.root / "..2026_01_01_00_00_00.half/b").mkdir(parents=True)
    (volume.root / "..data_tmp").symlink_to("..2026_01_01_00_00_00.half")
    volume.show(file("a"))
    assert (volume.shown, volume.names()) == (before, {"..data", "a"})


def test_what_stands_where_a_link_belongs_goes(volume: Volume) -> None:
    """Plain files, directories and foreign links at the volume's names make room."""
    (volume.root / "a").write_bytes(b"stale")
    (volume.root / "b/c").mkdir(parents=True)
    (volume.root / "c").symlink_to("/elsewhere")
    (volume.root / "..data").mkdir()
    volume.show(file("a"), file("b"), file("c"))
    assert volume.names() == {"..data", "a", "b", "c"}
    assert all((volume.root / name).read_bytes() == b"x" for name in "abc")


def test_what_others_put_beside_stays(volume: Volume) -> None:
    """Only links into ``..data`` are the writer's to remove."""
    (volume.root / "theirs").write_bytes(b"theirs")
    (volume.root / "link").symlink_to("theirs")
    volume.show(file("a"))
    volume.show()
    assert volume.names() == {"..data", "theirs", "link"}


@pytest.mark.parametrize("target", ["..", "../outside", "/", "nowhere", "..gone", "inside"])
def test_odd_data_link_is_replaced(volume: Volume, target: str) -> None:
    """A ``..data`` that names no directory of the layout is nothing that is shown."""
    (volume.root / "inside").mkdir()
    (volume.root / "..data").symlink_to(target)
    volume.show(file("a"))
    assert STAMP.match(volume.shown)
    assert (volume.root / "a").read_bytes() == b"x"


def test_no_room_leaves_what_was_shown(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generation that does not fit leaves the old one and nothing of itself."""
    volume.show(file("a", b"old"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Snapshot, "copy_to", full)
    with pytest.raises(OSError, match="No space"):
        volume.show(file("a", b"new"), file("d/e"))
    assert volume.names() == {"..data", "a"}
    assert (volume.root / "a").read_bytes() == b"old"


def test_hostile_paths_are_refused(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot whose index was forged writes nothing."""
    volume.show(file("a"))
    assert volume.newest is not None
    forged = {"../a": volume.newest.files["a"]}
    monkeypatch.setattr(volume.newest, "files", forged)
    with pytest.raises(InvalidTree):
        write(volume.newest, volume.root)

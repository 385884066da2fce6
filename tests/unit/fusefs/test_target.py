"""Where a volume may be mounted: kubelet's layout on a plain directory, one deviation a row."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from fusefs import mountinfo, mounts
from fusefs.emptying import empty, is_empty
from fusefs.errors import TargetRefused
from fusefs.mountinfo import parse
from fusefs.target import KubeletRoot, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DRIVER = "secrets-store.csi.k8s.io"
VOLUME = "csi-0123"
UID = "7d7c1483-a29e-47c3-8d13-739617f82a24"
BELOW = f"pods/{UID}/volumes/kubernetes.io~csi/secrets"


@attrs.define
class Kubelet:
    """kubelet's root on a plain directory, with one volume prepared."""

    path: Path
    root: KubeletRoot

    @property
    def parent(self) -> Path:
        """The directory that kubelet makes for the volume."""
        return self.path / BELOW

    @property
    def mount(self) -> Path:
        """The target."""
        return self.parent / "mount"

    def write(self, **change: object) -> None:
        """Write ``vol_data.json``, with changes; None leaves a key out."""
        data = {"driverName": DRIVER, "volumeHandle": VOLUME, "nodeName": "n"} | change
        kept = {key: value for key, value in data.items() if value is not None}
        (self.parent / "vol_data.json").write_text(json.dumps(kept), encoding="utf-8")

    def target(self, path: str | None = None) -> Target:
        """Ask for the target."""
        return self.root.target(path or str(self.mount), volume_id=VOLUME, driver=DRIVER)

    def remove(self) -> bool:
        """Take the target away."""
        target = self.root.parent_if_present(str(self.mount))
        assert target is not None
        try:
            return target.remove(volume_id=VOLUME, driver=DRIVER)
        finally:
            target.close()


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[Kubelet]:
    """Return a root in which one volume is prepared as kubelet does it."""
    (tmp_path / BELOW).mkdir(parents=True)
    made = Kubelet(tmp_path, KubeletRoot(str(tmp_path)))
    made.write()
    yield made
    made.root.close()


def refusal(ask: Callable[[], object]) -> TargetRefused:
    """Return how a target is refused."""
    with pytest.raises(TargetRefused) as caught:
        ask()
    return caught.value


# The layout


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("{root}/" + BELOW, id="parent"),
        pytest.param("{root}/" + BELOW + "/mount/below", id="below"),
        pytest.param("{root}/" + BELOW + "/mount/", id="trailing-slash"),
        pytest.param("{root}/" + BELOW + "/other", id="other-name"),
        pytest.param("{root}/./" + BELOW + "/mount", id="dot"),
        pytest.param("{root}//" + BELOW + "/mount", id="double-slash"),
        pytest.param("{root}/" + BELOW + "/../secrets/mount", id="dotdot"),
        pytest.param("{root}/pods/../volumes/kubernetes.io~csi/v/mount", id="dotdot-as-uid"),
        pytest.param(f"{{root}}/pods/{UID}/volumes/kubernetes.io~csi/../mount", id="dotdot-name"),
        pytest.param(f"{{root}}/pods/{UID}/volumes/kubernetes.io~csi/./mount", id="dot-as-name"),
        pytest.param(f"{{root}}/pods/{UID}/volumes/kubernetes.io~empty-dir/v/mount", id="plugin"),
        pytest.param(f"{{root}}/plugins/{UID}/volumes/kubernetes.io~csi/v/mount", id="plugins"),
        pytest.param("{root}/pods/a b/volumes/kubernetes.io~csi/v/mount", id="odd-uid"),
        pytest.param("{root}/pods/u\n/volumes/kubernetes.io~csi/v/mount", id="newline-in-uid"),
        pytest.param(f"{{root}}/pods/{'u' * 65}/volumes/kubernetes.io~csi/v/mount", id="long-uid"),
        pytest.param(
            f"{{root}}/pods/{UID}/volumes/kubernetes.io~csi/{'v' * 256}/mount", id="long-name"
        ),
        pytest.param("/other/" + BELOW + "/mount", id="other-root"),
        pytest.param(BELOW + "/mount", id="relative"),
        pytest.param("", id="empty"),
        pytest.param("/", id="slash"),
    ],
)
def test_paths_outside_the_layout_are_refused(kubelet: Kubelet, path: str) -> None:
    """The caller's argument is wrong, and the error names the layout and the flag."""
    asked = path.format(root=kubelet.path)
    for ask in (
        lambda: kubelet.target(asked or "/x"),
        lambda: kubelet.root.parent_if_present(asked),
    ):
        error = refusal(ask)
        assert error.layout
        assert "volumes/kubernetes.io~csi/NAME/mount" in str(error)
        assert "--kubelet-root" in str(error)


def test_prepared_target_is_held_by_its_parent(kubelet: Kubelet) -> None:
    """The target keeps its path, and a descriptor of the directory that it is in."""
    target = kubelet.target()
    try:
        assert target.path == str(kubelet.mount)
        assert os.path.samestat(os.fstat(target.parent), kubelet.parent.stat())
    finally:
        target.close()


def test_kubelet_root_may_be_a_link(tmp_path: Path) -> None:
    """Only what lies below ``pods`` is walked without following links."""
    (tmp_path / "disk" / BELOW).mkdir(parents=True)
    (tmp_path / "kubelet").symlink_to("disk")
    made = Kubelet(tmp_path / "kubelet", KubeletRoot(str(tmp_path / "kubelet")))
    made.write()
    made.target().close()
    made.root.close()


def test_missing_root_is_an_error_of_the_start(tmp_path: Path) -> None:
    """Without ``pods`` there is nothing to hold."""
    with pytest.raises(FileNotFoundError):
        KubeletRoot(str(tmp_path / "nothing"))


# What kubelet wrote


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param({"driverName": "other.csi"}, "names another driver", id="other-driver"),
        pytest.param({"driverName": None}, "names another driver", id="no-driver"),
        pytest.param({"volumeHandle": "csi-9"}, "names another driver or volume", id="volume"),
        pytest.param({"volumeHandle": None}, "names another driver or volume", id="no-volume"),
        pytest.param({"volumeHandle": [VOLUME]}, "names another driver or volume", id="list"),
    ],
)
def test_volume_data_of_another_is_refused(
    kubelet: Kubelet, change: dict[str, object], problem: str
) -> None:
    """Kubelet prepared this directory for somebody else: the node's state forbids it."""
    kubelet.write(**change)
    error = refusal(kubelet.target)
    assert problem in str(error)
    assert not error.layout


def link(path: Path) -> None:
    """Put the file elsewhere and a link in its place."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def directory(path: Path) -> None:
    """Put a directory in place of the file."""
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    """Put a pipe that nobody writes into in place of the file."""
    path.unlink()
    os.mkfifo(path)


UNREADABLE: dict[str, Callable[[Path], Any]] = {
    "absent": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "no-json": lambda path: path.write_bytes(b"{"),
    "no-utf-8": lambda path: path.write_bytes(b"\xff"),
    "deep": lambda path: path.write_bytes(b"[" * 60_000),
    "too-large": lambda path: path.write_text(" " * (65 << 10) + path.read_text()),
    "directory": directory,
    "fifo": fifo,
    "link": link,
}


@pytest.mark.parametrize("spoil", UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_volume_data_is_refused(
    kubelet: Kubelet, spoil: Callable[[Path], object]
) -> None:
    """Whatever stands there instead of the file: refused, without waiting or leaving it open."""
    spoil(kubelet.parent / "vol_data.json")
    error = refusal(kubelet.target)
    assert not error.layout
    assert "vol_data.json" in str(error)


@pytest.mark.parametrize("data", ["[]", "null", "1", '"x"'])
def test_volume_data_must_be_an_object(kubelet: Kubelet, data: str) -> None:
    """Other JSON names no driver."""
    (kubelet.parent / "vol_data.json").write_text(data, encoding="utf-8")
    assert "names another driver" in str(refusal(kubelet.target))


# The way to the target


def test_missing_parent_is_refused(kubelet: Kubelet) -> None:
    """Kubelet makes the directory first; to unpublish, its absence is fine."""
    kubelet.parent.rename(kubelet.parent.with_name("gone"))
    error = refusal(kubelet.target)
    assert "does not exist; kubelet makes it" in str(error)
    assert not error.layout
    assert kubelet.root.parent_if_present(str(kubelet.mount)) is None


@pytest.mark.parametrize("depth", range(1, 5))
def test_links_on_the_way_are_refused(kubelet: Kubelet, depth: int) -> None:
    """No element below ``pods`` may be a link, wherever it leads."""
    element = kubelet.path / "/".join(BELOW.split("/")[: depth + 1])
    moved = element.with_name("moved")
    element.rename(moved)
    element.symlink_to(moved)
    for ask in (kubelet.target, lambda: kubelet.root.parent_if_present(str(kubelet.mount))):
        error = refusal(ask)
        assert "symbolic link" in str(error)
        assert not error.layout


def test_file_on_the_way_is_refused(kubelet: Kubelet) -> None:
    """A file where a directory must be is the node's fault; nothing can be below it."""
    kubelet.parent.rename(kubelet.parent.with_name("moved"))
    kubelet.parent.touch()
    assert "not a directory" in str(refusal(kubelet.target))
    assert kubelet.root.parent_if_present(str(kubelet.mount)) is None


# What is at the target


def opened(kubelet: Kubelet) -> int:
    """Open the target."""
    target = kubelet.target()
    try:
        return target.open()
    finally:
        target.close()


def test_absent_target_is_made(kubelet: Kubelet) -> None:
    """The directory gets the mode that kubelet and the reference driver give it."""
    mask = os.umask(0o027)
    try:
        os.close(opened(kubelet))
    finally:
        os.umask(mask)
    assert stat.S_IMODE(kubelet.mount.stat().st_mode) == 0o750


def test_present_directory_is_opened(kubelet: Kubelet) -> None:
    """A directory that is there already is the target, as it is."""
    kubelet.mount.mkdir(mode=0o711)
    directory = opened(kubelet)
    assert os.path.samestat(os.fstat(directory), kubelet.mount.stat())
    os.close(directory)
    assert stat.S_IMODE(kubelet.mount.stat().st_mode) == 0o711


OBSTACLES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "file": (Path.touch, "not a directory; remove the file"),
    "link": (lambda path: path.symlink_to("/tmp"), "symbolic link; remove the link"),
    "dangling-link": (lambda path: path.symlink_to("nowhere"), "symbolic link; remove the link"),
    "fifo": (os.mkfifo, "not a directory; remove the file"),
}


@pytest.mark.parametrize(("put", "problem"), OBSTACLES.values(), ids=OBSTACLES)
def test_obstacles_at_the_target_are_refused(
    kubelet: Kubelet, put: Callable[[Path], object], problem: str
) -> None:
    """A volume is mounted on a directory only; what is there otherwise stays as it is."""
    put(kubelet.mount)
    before = kubelet.mount.lstat()
    error = refusal(lambda: opened(kubelet))
    assert problem in str(error)
    assert not error.layout
    assert os.path.samestat(kubelet.mount.lstat(), before)


# Taking it away


def test_absent_target_is_gone_already(kubelet: Kubelet) -> None:
    """Removing what is not there is done."""
    assert kubelet.remove()


def test_empty_target_is_removed(kubelet: Kubelet) -> None:
    """The directory goes; what kubelet wrote beside it stays."""
    kubelet.mount.mkdir()
    assert kubelet.remove()
    assert not kubelet.mount.exists()
    assert (kubelet.parent / "vol_data.json").exists()


def test_full_target_must_be_emptied_first(kubelet: Kubelet) -> None:
    """Content goes in a child of its own, and only where kubelet made the directory for us."""
    kubelet.mount.mkdir()
    (kubelet.mount / "a").touch()
    assert not kubelet.remove()
    kubelet.write(volumeHandle="csi-9")
    refusal(kubelet.remove)
    assert (kubelet.mount / "a").exists()


def test_link_at_the_target_goes_alone(kubelet: Kubelet) -> None:
    """What a link names is never touched, and a link of another volume stays."""
    elsewhere = kubelet.path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a").touch()
    kubelet.mount.symlink_to(elsewhere)
    kubelet.write(driverName="other")
    refusal(kubelet.remove)
    assert kubelet.mount.is_symlink()
    kubelet.write()
    assert kubelet.remove()
    assert not kubelet.mount.is_symlink()
    assert (elsewhere / "a").exists()


def test_detaching_leaves_content_alone(kubelet: Kubelet) -> None:
    """A volume that ends takes its mounts away, and its directory only if it is empty."""
    target = kubelet.target()
    target.detach()
    kubelet.mount.mkdir()
    (kubelet.mount / "a").touch()
    target.detach()
    assert (kubelet.mount / "a").exists()
    (kubelet.mount / "a").unlink()
    target.detach()
    assert not kubelet.mount.exists()
    target.close()


def table_with(kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Let the mount table show `lines`, in which {mount} is the target, {here} its file system."""
    directory = os.open(kubelet.parent, os.O_PATH)
    here = mountinfo.mount_number(directory)
    os.close(directory)
    mount = os.path.realpath(kubelet.mount)
    made = [line.format(mount=mount, here=here) for line in lines]
    monkeypatch.setattr(mountinfo, "mounts", lambda: parse(made))


def test_foreign_mount_at_the_target_is_refused(
    kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others have mounted is named and never taken off."""
    kubelet.mount.mkdir()
    table_with(kubelet, monkeypatch, "9 {here} 0:9 / {mount} rw - tmpfs scratch rw")
    error = refusal(kubelet.remove)
    assert "not ours (tmpfs, source 'scratch'); unmount it" in str(error)


def test_mount_inside_the_target_is_refused(
    kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emptying would stop there half done, so it does not begin."""
    kubelet.mount.mkdir()
    (kubelet.mount / "a").mkdir()
    table_with(kubelet, monkeypatch, "9 {here} 0:9 / {mount}/a rw - tmpfs scratch rw")
    error = refusal(kubelet.remove)
    assert "has a mount inside it (at 'a'); unmount it" in str(error)


FUSE = "fuse.akvfs akvfs"


@pytest.mark.parametrize(
    ("stack", "shows", "detached"),
    [
        pytest.param([], False, 0, id="nothing"),
        pytest.param([FUSE], False, 0, id="dead"),
        pytest.param(["tmpfs akvfs"], True, 0, id="ours"),
        pytest.param(["tmpfs tmpfs", "tmpfs tmpfs"], True, 0, id="stacked"),
        pytest.param(["tmpfs tmpfs", FUSE, FUSE], True, 2, id="below-dead-ones"),
        pytest.param(["tmpfs tmpfs", "ext4 /dev/sda"], False, 0, id="below-a-foreign-one"),
        pytest.param(["tmpfs scratch"], False, 0, id="foreign"),
    ],
)
def test_tmpfs_is_found_below_dead_mounts(
    kubelet: Kubelet,
    monkeypatch: pytest.MonkeyPatch,
    stack: list[str],
    *,
    shows: bool,
    detached: int,
) -> None:
    """What a pod may be using is uncovered; nothing else is taken off on the way."""
    below = "{here}"
    lines = []
    for number, kind in enumerate(stack, 1_000_000):
        lines.append(f"{number} {below} 0:9 / {{mount}} rw - {kind} rw")
        below = str(number)

    def detach(*_: object) -> bool:
        lines.pop()
        table_with(kubelet, monkeypatch, *lines)
        return True

    monkeypatch.setattr(mounts, "detach_below", detach)
    table_with(kubelet, monkeypatch, *lines)
    target = kubelet.target()
    assert target.shows_tmpfs() is shows
    assert len(stack) - len(lines) == detached
    target.close()


def test_tmpfs_goes_only_from_a_volume_of_ours(
    kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tmpfs as the reference driver mounts it may be another driver's."""
    kubelet.mount.mkdir()
    kubelet.write(driverName="other")
    table_with(kubelet, monkeypatch, "9 {here} 0:9 / {mount} rw - tmpfs tmpfs rw")
    error = refusal(kubelet.remove)
    assert "vol_data.json" in str(error)


# Emptying


def test_emptying_removes_everything_inside(tmp_path: Path) -> None:
    """Files, directories, links and pipes go, deep and unreadable ones too; the directory stays."""
    top = tmp_path / "top"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (top / "a/b/c").mkdir(parents=True)
    (top / "a/b/file").write_bytes(b"x")
    (top / "a/link").symlink_to(outside)
    (top / "to-file").symlink_to(outside / "kept")
    (top / "dangling").symlink_to("nowhere")
    (top / "new\nline").touch()
    os.mkfifo(top / "fifo")
    directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    path_only = os.open(top, os.O_PATH | os.O_DIRECTORY)
    try:
        assert not is_empty(path_only)
        empty(directory)
        assert is_empty(path_only)
    finally:
        os.close(directory)
        os.close(path_only)
    assert list(top.iterdir()) == []
    assert (outside / "kept").exists()

"""Targets that must not be mounted on: refused, without effect, and what is there stays."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import grpc
import pytest

from harness.kubelet import VOLUME_DATA, write_volume_data
from harness.refusals import Refusal, check_accepted, check_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from harness.kubelet import PodVolume
    from harness.node import Node

Obstacle = "Callable[[PodVolume, Path], AbstractContextManager[None]]"
WITNESS: Final = "witness"
UNMOUNT_TIMEOUT_S: Final = 10


@attrs.frozen(kw_only=True)
class Row:
    """What is in the way, until somebody follows the remedy, and the answer."""

    obstacle: Callable[[PodVolume, Path], AbstractContextManager[None]]
    refusal: Refusal


def row(obstacle: Callable[[PodVolume, Path], AbstractContextManager[None]], *, remedy: str) -> Any:  # noqa: ANN401
    """Return a parameter of the table, named after its obstacle."""
    refusal = Refusal(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        starts="target_path: target ",
        field="target_path",
        remedy=remedy,
    )
    name = obstacle.__name__.replace("_", "-")
    return pytest.param(Row(obstacle=obstacle, refusal=refusal), id=name)


@contextmanager
def target_is_a_link(volume: PodVolume, outside: Path) -> Iterator[None]:
    """Let the target lead elsewhere."""
    volume.target.symlink_to(outside)
    yield
    volume.target.unlink()


@contextmanager
def target_is_a_link_to_nothing(volume: PodVolume, outside: Path) -> Iterator[None]:
    """Let the target lead to what does not exist."""
    volume.target.symlink_to(outside / "missing")
    yield
    volume.target.unlink()


@contextmanager
def volume_is_a_link(volume: PodVolume, outside: Path) -> Iterator[None]:
    """Let the directory of the volume be elsewhere, with all that kubelet writes."""
    moved = outside / "volume"
    volume.directory.rename(moved)
    volume.directory.symlink_to(moved)
    yield
    volume.directory.unlink()
    moved.rename(volume.directory)


@contextmanager
def pod_is_a_link(volume: PodVolume, outside: Path) -> Iterator[None]:
    """Let the directory of the pod be elsewhere, with all that kubelet writes."""
    pod, moved = volume.directory.parents[2], outside / "pod"
    pod.rename(moved)
    pod.symlink_to(moved)
    yield
    pod.unlink()
    moved.rename(pod)


@contextmanager
def target_is_a_file(volume: PodVolume, _: Path) -> Iterator[None]:
    """Put a file where the directory should be."""
    volume.target.write_text("somebody's")
    yield
    assert volume.target.read_text() == "somebody's"
    volume.target.unlink()


@contextmanager
def target_holds_a_tmpfs(volume: PodVolume, _: Path) -> Iterator[None]:
    """Mount what is not ours on the target."""
    volume.target.mkdir()
    with mounted("tmpfs", volume.target):
        yield


@contextmanager
def target_holds_a_bind(volume: PodVolume, outside: Path) -> Iterator[None]:
    """Bind a directory of the same device on the target."""
    volume.target.mkdir()
    with mounted("bind", volume.target, outside):
        yield
        assert (volume.target / WITNESS).exists()


@contextmanager
def target_below_a_mount(volume: PodVolume, _: Path) -> Iterator[None]:
    """Mount on the directory of the volume, and prepare it there."""
    with mounted("tmpfs", volume.directory):
        write_volume_data(volume.directory, volume.volume_id)
        yield


@contextmanager
def mount_inside_the_target(volume: PodVolume, _: Path) -> Iterator[None]:
    """Mount below a target that is a plain directory."""
    (volume.target / "inside").mkdir(parents=True)
    with mounted("tmpfs", volume.target / "inside"):
        yield


@contextmanager
def volume_data_is_missing(volume: PodVolume, _: Path) -> Iterator[None]:
    """Call before kubelet has written who the volume belongs to."""
    (volume.directory / VOLUME_DATA).unlink()
    yield
    volume.prepare()


@contextmanager
def volume_data_is_a_link(volume: PodVolume, outside: Path) -> Iterator[None]:
    """Let somebody else's file say who the volume belongs to."""
    data = volume.directory / VOLUME_DATA
    moved = data.rename(outside / VOLUME_DATA)
    data.symlink_to(moved)
    yield
    data.unlink()
    volume.prepare()


@contextmanager
def volume_data_is_broken(volume: PodVolume, _: Path) -> Iterator[None]:
    """Let the file be cut off."""
    (volume.directory / VOLUME_DATA).write_text('{"driverName": "secrets-st')
    yield
    volume.prepare()


@contextmanager
def volume_data_names_another_driver(volume: PodVolume, _: Path) -> Iterator[None]:
    """Let the volume belong to another driver."""
    volume.prepare(driverName="other.csi.k8s.io")
    yield
    volume.prepare()


@contextmanager
def volume_data_names_another_volume(volume: PodVolume, _: Path) -> Iterator[None]:
    """Let the directory belong to another volume of ours."""
    volume.prepare(volumeHandle="csi-other")
    yield
    volume.prepare()


@contextmanager
def mounted(kind: str, target: Path, source: Path | None = None) -> Iterator[None]:
    """Mount a tmpfs with a witness, or bind `source`; both must be there at the end."""
    options = ["--bind"] if kind == "bind" else ["--types=tmpfs"]
    run("mount", *options, str(source or "somebody"), str(target))
    try:
        if kind == "tmpfs":
            (target / WITNESS).touch()
        yield
        assert (target / WITNESS).exists()
    finally:
        run("umount", str(target))


def run(*command: str) -> None:
    """Run a program of the system."""
    subprocess.run(command, check=True, timeout=UNMOUNT_TIMEOUT_S)


ROWS: Final = [
    row(target_is_a_link, remedy="remove the link"),
    row(target_is_a_link_to_nothing, remedy="remove the link"),
    row(volume_is_a_link, remedy="remove the link"),
    row(pod_is_a_link, remedy="remove the link"),
    row(target_is_a_file, remedy="remove the file"),
    row(
        target_holds_a_tmpfs,
        remedy="holds a mount that is not ours (tmpfs, source 'somebody'); unmount it",
    ),
    row(target_holds_a_bind, remedy="unmount it"),
    row(target_below_a_mount, remedy="is on a mount inside kubelet's pods directory; unmount it"),
    row(mount_inside_the_target, remedy="has a mount inside it (at 'inside'); unmount it"),
    row(volume_data_is_missing, remedy="vol_data.json beside it cannot be read; kubelet writes it"),
    row(volume_data_is_a_link, remedy="vol_data.json beside it cannot be read; kubelet writes it"),
    row(volume_data_is_broken, remedy="vol_data.json beside it cannot be read; kubelet writes it"),
    row(volume_data_names_another_driver, remedy="names another driver or volume"),
    row(volume_data_names_another_volume, remedy="names another driver or volume"),
]


@pytest.fixture
def outside(node: Node) -> Iterator[Path]:
    """Provide a directory outside `pods`, on the same device, with a witness in it."""
    directory = node.kubelet.path / "outside"
    directory.mkdir()
    (directory / WITNESS).touch()
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("case", ROWS)
def test_bad_target_leaves_nothing(node: Node, volume: PodVolume, case: Row, outside: Path) -> None:
    """A bad target is refused with its remedy; once that is followed, the volume is published."""
    with case.obstacle(volume, outside):
        check_refused(node, volume, case.refusal)
        assert (outside / WITNESS).exists()
    check_accepted(node, volume)


def test_absent_directory_is_told(node: Node, volume: PodVolume) -> None:
    """A volume whose directory kubelet has not made is refused, and nothing is made for it."""
    volume.remove()
    refusal = Refusal(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        starts="target_path: target ",
        field="target_path",
        remedy="does not exist; kubelet makes it before it calls",
    )
    check_refused(node, volume, refusal)


def test_second_target_of_a_volume_is_refused(node: Node, volume: PodVolume) -> None:
    """A volume that is shown is not shown elsewhere as well; the first pod keeps it."""
    other = node.volume()
    node.publish(volume)
    refusal = Refusal(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        starts=f"volume {volume.volume_id} is published at another target",
        field="target_path",
        remedy=f"unpublish {volume.target} first",
    )
    write_volume_data(other.directory, volume.volume_id)
    check_refused(node, volume, refusal, target_path=str(other.target))
    other.prepare()
    check_accepted(node, other)
    assert (volume.target / "password").read_bytes() == b"first"
    node.unpublish(volume)
    volume.remove()


def test_target_of_another_volume_is_refused(node: Node, volume: PodVolume) -> None:
    """A target that shows a volume is not given to another one; the first stays."""
    other = node.volume()
    node.publish(volume)
    refusal = Refusal(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        starts=f"target {volume.target} is taken",
        field="target_path",
        remedy=f"unpublish volume {volume.volume_id} there first",
    )
    check_refused(node, other, refusal, target_path=str(volume.target))
    assert (volume.target / "password").read_bytes() == b"first"
    node.unpublish(volume)
    volume.remove()
    check_accepted(node, other)

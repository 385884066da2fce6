"""Who is named as still seeing a volume, from tables as the kernel writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from fusefs.mountinfo import Mount, parse
from fusefs.sightings import containers_seeing

if TYPE_CHECKING:
    from pathlib import Path

CONTAINER: Final = "0123456789abcdef" * 4
OURS: Final = "36 35 0:71 / /secrets ro - fuse.akvfs akvfs ro"
ROOT: Final = "35 1 0:30 / / rw - overlay overlay rw"


@pytest.fixture
def gone() -> Mount:
    """Return the mount that was taken off its target."""
    return parse([OURS])[0]


def add(proc: Path, pid: int, *, namespace: str, table: str, cgroup: str = "0::/") -> None:
    """Write what the kernel shows of a process."""
    process = proc / str(pid)
    (process / "ns").mkdir(parents=True)
    (process / "ns/mnt").symlink_to(f"mnt:[{namespace}]")
    (process / "mountinfo").write_text(f"{ROOT}\n{table}\n", encoding="utf-8")
    (process / "cgroup").write_text(f"{cgroup}\n", encoding="ascii")
    (process / "comm").write_text("web\n", encoding="ascii")


@pytest.mark.parametrize(
    "cgroup",
    [
        f"0::/../kubepods/burstable/pod12/{CONTAINER}",
        f"0::/kubepods.slice/kubepods-pod12.slice/cri-containerd-{CONTAINER}.scope",
        f"3:cpu:/kubepods/pod12/{CONTAINER}\n2:memory:/kubepods/pod12/{CONTAINER}",
    ],
)
def test_container_is_named_by_its_id(tmp_path: Path, gone: Mount, cgroup: str) -> None:
    """Whatever lays the groups out, the id of the container is in there; each is named once."""
    for pid in (7, 8):
        add(tmp_path, pid, namespace="1", table=OURS, cgroup=cgroup)
    assert containers_seeing(gone, tmp_path) == [CONTAINER]


def test_other_process_is_named_by_pid(tmp_path: Path, gone: Mount) -> None:
    """What is in no container is named as an operator finds it."""
    add(tmp_path, 9, namespace="1", table=OURS)
    add(tmp_path, 10, namespace="2", table=OURS)
    assert containers_seeing(gone, tmp_path) == ["process 10 (web)", "process 9 (web)"]


@pytest.mark.parametrize(
    "table",
    [
        "",
        OURS.replace("0:71", "0:72"),
        OURS.replace("fuse.akvfs", "tmpfs"),
        OURS.replace(" akvfs", " other"),
    ],
)
def test_others_are_not_named(tmp_path: Path, gone: Mount, table: str) -> None:
    """No mount, another volume's, or another file system that got the number: nobody is named."""
    add(tmp_path, 9, namespace="1", table=table)
    assert containers_seeing(gone, tmp_path) == []


def test_host_is_not_named(tmp_path: Path) -> None:
    """What kubelet bound a subPath from is no container, wherever kubelet's directory is seen."""
    target = "/var/lib/kubelet/pods/12/volumes/kubernetes.io~csi/secrets/mount"
    (gone,) = parse([OURS.replace("/secrets", target)])
    subpath = "/host/var/lib/kubelet/pods/12/volume-subpaths/secrets/web/0"
    add(tmp_path, 1, namespace="1", table=OURS.replace("/secrets", subpath))
    add(tmp_path, 9, namespace="2", table=OURS)
    assert containers_seeing(gone, tmp_path) == ["process 9 (web)"]


def test_ended_process_is_passed_over(tmp_path: Path, gone: Mount) -> None:
    """A process may end while the tables are read."""
    (tmp_path / "5").mkdir()
    add(tmp_path, 6, namespace="1", table=OURS)
    (tmp_path / "6/mountinfo").unlink()
    add(tmp_path, 7, namespace="2", table=OURS)
    (tmp_path / "7/cgroup").unlink()
    assert containers_seeing(gone, tmp_path) == ["process 7 (?)"]

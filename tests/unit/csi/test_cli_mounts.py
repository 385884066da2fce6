"""The mount table as the command line reads it. Mounting itself is tested with the playground."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi.cli import mounts

TABLE = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
96 27 254:0 /tmp/a\\040b /tmp/a\\040b/kubelet rw,relatime shared:3 - ext4 /dev/vda rw
97 96 0:40 / /tmp/a\\040b/kubelet/pods/mount ro,nosuid shared:4 master:1 - fuse.akvfs akvfs ro
"""


def test_mount_table_is_read_with_its_escapes() -> None:
    """Paths with spaces, optional fields and options come out whole."""
    root, kubelet, volume = mounts.parse(TABLE)
    assert (root.target, root.filesystem, root.is_ours) == ("/", "ext4", False)
    assert kubelet.target == "/tmp/a b/kubelet"
    assert volume.is_ours
    assert volume.options == {"ro", "nosuid"}
    assert (volume.filesystem, volume.source) == ("fuse.akvfs", "akvfs")


def test_nothing_is_mounted_in_a_plain_folder(tmp_path: Path) -> None:
    """A folder without mounts has none, and taking them off is no error."""
    assert mounts.at_or_below(tmp_path) == []
    mounts.detach(tmp_path)


def test_root_holds_every_mount() -> None:
    """The table of this process is not empty, and /proc is in it."""
    assert any(mount.target == "/proc" for mount in mounts.at_or_below(Path("/proc")))


def test_refused_mount_names_the_path(tmp_path: Path) -> None:
    """An error of the kernel carries its number and what was tried."""
    with pytest.raises(OSError, match="missing") as caught:
        mounts.bind_private(tmp_path / "missing")
    assert caught.value.errno is not None

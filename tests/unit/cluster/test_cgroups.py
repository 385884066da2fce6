"""Where the node's cgroups are made, on machines of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.cgroups import parents

ROOT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"
V1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw shared:5 - cgroup cgroup rw,xattr,name=systemd\n"
)
V2_BESIDE = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
V2 = "31 23 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("own", "mountinfo", "expected"),
    [
        pytest.param(
            "4:cpu,cpuacct:/limited\n1:name=systemd:/\n0::/\n",
            ROOT + V1 + V2_BESIDE,
            ["cpu,cpuacct/limited", "systemd", "unified"],
            id="version-1",
        ),
        pytest.param(
            "0::/user.slice/user-0.slice/session-3.scope\n",
            ROOT + V2,
            ["user.slice/user-0.slice"],
            id="version-2",
        ),
        pytest.param("0::/\n", ROOT + V2, [""], id="version-2-at-the-root"),
        pytest.param(
            "4:cpu,cpuacct:/docker/1a2b/inner\n",
            ROOT + V1.replace(" / /sys", " /docker/1a2b /sys"),
            ["cpu,cpuacct/inner"],
            id="version-1-in-a-container",
        ),
        pytest.param("7:rdma:/\n", ROOT + V1, [], id="not-mounted"),
    ],
)
def test_cgroup_is_made_within_own_limits(own: str, mountinfo: str, expected: list[str]) -> None:
    """The node's cgroup is below this process's, or beside it where it cannot be below."""
    found = list(parents(own, mountinfo))
    assert found == [Path("/sys/fs/cgroup", each) for each in expected]

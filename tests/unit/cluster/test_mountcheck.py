"""The judgement of what is mounted in the namespaces of a node."""

from __future__ import annotations

from typing import Final

import pytest

from cluster.mountcheck import Namespace, judge
from fusefs import mountinfo

TARGET: Final = "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/secrets/mount"
CLONE: Final = f"51 40 0:70 / {TARGET} ro,nosuid,nodev,relatime shared:7 - fuse.akvfs akvfs ro"
FILE: Final = "52 40 0:70 /key /pods/1/subpath ro,nosuid,nodev shared:8 - fuse.akvfs akvfs ro"
PRIVATE: Final = "90 80 0:70 / /run/akvfs/private/0 rw,nosuid,nodev - fuse.akvfs akvfs ro"
IN_POD: Final = "60 55 0:70 / /secrets ro,relatime - fuse.akvfs akvfs ro"


def namespace(name: str, *lines: str) -> Namespace:
    """Return a namespace with these lines of mountinfo."""
    mounts = tuple(mountinfo.parse(lines))
    return Namespace(identity=name, programs=frozenset({name}), mounts=mounts)


def test_mounts_as_they_must_be_are_counted() -> None:
    """Read-only clones for everybody and one private mount of the keeper are one volume."""
    found = [
        namespace("kubelet", CLONE, FILE),
        namespace("keeper", CLONE, PRIVATE),
        namespace("pod", IN_POD),
        namespace("other"),
    ]
    assert judge(found, host="kubelet") == 1
    assert judge([namespace("kubelet"), namespace("keeper")], host="kubelet") == 0


@pytest.mark.parametrize(
    ("kubelet", "keeper", "pod", "told"),
    [
        pytest.param([CLONE, CLONE], [PRIVATE], [], "two targets", id="stacked"),
        pytest.param([FILE], [PRIVATE], [], "at no target", id="left-behind"),
        pytest.param([CLONE.replace("nodev,", "")], [PRIVATE], [], "other options", id="devices"),
        pytest.param([CLONE.replace(" ro,", " rw,")], [PRIVATE], [], "options", id="writable"),
        pytest.param([CLONE], [], [], "other namespaces", id="none-private"),
        pytest.param([CLONE], [PRIVATE], [PRIVATE], "other namespaces", id="seen-in-a-pod"),
        pytest.param([], [PRIVATE], [], "other namespaces", id="kept-without-a-target"),
        pytest.param([CLONE], [PRIVATE, PRIVATE], [], "not one private", id="two-private"),
        pytest.param(
            [CLONE], [PRIVATE.replace(" - ", " master:3 - ")], [], "not private", id="a-slave"
        ),
    ],
)
def test_mounts_as_they_must_not_be_are_told(
    kubelet: list[str], keeper: list[str], pod: list[str], told: str
) -> None:
    """Each deviation is an error that says which it is."""
    found = [namespace("kubelet", *kubelet), namespace("keeper", *keeper), namespace("pod", *pod)]
    with pytest.raises(AssertionError, match=told):
        judge(found, host="kubelet")

"""Labels of volumes: what is passed on, and what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusefs import selinux
from fusefs.errors import InvalidMessage

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "context",
    [
        "system_u:object_r:container_file_t",
        "system_u:object_r:container_file_t:s0",
        "system_u:object_r:container_file_t:s0:c12,c34",
        "u:r:t:s0-s15:c0.c1023",
    ],
)
def test_context_of_a_pod_is_passed_on(context: str) -> None:
    """What kubelet asks for is what the volume gets."""
    assert selinux.context_of(context, on=True) == context


@pytest.mark.parametrize(
    "context",
    [
        "container_file_t",
        "a:b:c,allow_other",
        'a:b:c:s0"',
        "a:b:c:s0 ",
        "a:b:c\n",
        "a:b:" + "c" * 200,
        "::",
    ],
)
def test_odd_context_is_refused(context: str) -> None:
    """Nothing but a context comes into the mount call, and the error shows what it should be."""
    with pytest.raises(InvalidMessage, match="USER:ROLE:TYPE"):
        selinux.context_of(context, on=True)


def test_labels_are_for_nodes_that_have_them() -> None:
    """Without a wish containers may read the files; without SELinux there is no label."""
    assert selinux.context_of("", on=True) == selinux.DEFAULT_CONTEXT
    assert selinux.context_of(selinux.DEFAULT_CONTEXT, on=True) == selinux.DEFAULT_CONTEXT
    for asked in ("", selinux.DEFAULT_CONTEXT):
        assert selinux.context_of(asked, on=False) == ""


def test_kernel_tells_whether_it_is_on(tmp_path: Path) -> None:
    """SELinux is on where its own file system is known."""
    table = tmp_path / "filesystems"
    table.write_text("nodev\tsysfs\n\text4\n", encoding="ascii")
    assert not selinux.is_on(table)
    table.write_text("nodev\tsysfs\nnodev\tselinuxfs\n", encoding="ascii")
    assert selinux.is_on(table)

"""What is mounted where: a parser of ``/proc/self/mountinfo`` (proc(5)).

Reading the table touches no mount, so it is safe beside dead ones.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

FILESYSTEM: Final = "fuse.akvfs"
SOURCE: Final = "akvfs"
_TMPFS_SOURCES: Final = (SOURCE, "tmpfs")  # the second is what the reference driver says
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@attrs.frozen(kw_only=True)
class Mount:
    """One line of the table.

    Attributes:
        number: Mount id.
        parent: Mount id of what it is mounted on.
        device: Major and minor number; the minor names the connection in fusectl.
        root: Which part of the file system is mounted.
        options: Per-mount options, such as ``ro``.
        propagation: Optional fields, such as ``shared:2``.
    """

    number: int
    parent: int
    device: str
    root: str
    target: str
    options: frozenset[str]
    propagation: tuple[str, ...]
    filesystem: str
    source: str
    super_options: frozenset[str]

    @property
    def is_ours(self) -> bool:
        """Whether this is a FUSE mount of akvfs."""
        return self.filesystem == FILESYSTEM and self.source == SOURCE

    @property
    def is_tmpfs(self) -> bool:
        """Whether this may be a tmpfs volume, of ours or of the reference driver.

        Anybody can mount such a thing: it is a volume where kubelet prepared one for us.
        """
        return self.filesystem == "tmpfs" and self.source in _TMPFS_SOURCES


def parse(lines: Iterable[str]) -> list[Mount]:
    """Return the mounts in `lines`, lowest in a stack first."""
    return [_parse_line(line) for line in lines if line.strip()]


def _parse_line(line: str) -> Mount:
    left, _, right = line.rstrip("\n").partition(" - ")
    fields, tail = left.split(" "), right.split(" ")
    return Mount(
        number=int(fields[0]),
        parent=int(fields[1]),
        device=fields[2],
        root=_unescape(fields[3]),
        target=_unescape(fields[4]),
        options=frozenset(fields[5].split(",")),
        propagation=tuple(fields[6:]),
        filesystem=tail[0],
        source=_unescape(tail[1]),
        super_options=frozenset(tail[-1].split(",")),
    )


def _unescape(field: str) -> str:
    """Undo the octal escapes of space, tab, newline and backslash."""
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), field)


def mounts(process: str = "self") -> list[Mount]:
    """Return the mounts that a process sees."""
    table = Path(f"/proc/{process}/mountinfo").read_bytes().decode(errors="surrogateescape")
    # Not splitlines: the kernel escapes no other line end, and a pod may put one into a name.
    return parse(table.split("\n"))


def stack_on(descriptor: int, name: str) -> list[Mount]:
    """Return what is stacked on `name` in the directory `descriptor`, lowest first.

    A path alone would not do: the table also lists mounts that are hidden below others.
    """
    target = f"{os.readlink(f'/proc/self/fd/{descriptor}')}/{name}"
    here = [mount for mount in mounts() if mount.target == target]
    stack: list[Mount] = []
    below = mount_number(descriptor)
    while found := [mount for mount in here if mount.parent == below]:
        stack.append(found[-1])
        below = found[-1].number
    return stack


def mount_number(descriptor: int) -> int:
    """Return the id of the mount that an open descriptor is on."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return int(fields["mnt_id"])

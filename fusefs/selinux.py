"""The SELinux label of a volume: one for all its files, given when it is mounted."""

import re
from pathlib import Path
from typing import Final

from fusefs.errors import InvalidMessage

# What containers may read, whatever their categories.
DEFAULT_CONTEXT: Final = "system_u:object_r:container_file_t:s0"
_CONTEXT: Final = re.compile(
    r"[A-Za-z0-9_.]{1,64}:[A-Za-z0-9_.]{1,64}:[A-Za-z0-9_.]{1,128}"
    r"(:s[0-9]{1,3}(-s[0-9]{1,3})?(:[c0-9.,]{1,255})?)?"
)


def is_on(filesystems: Path = Path("/proc/filesystems")) -> bool:
    """Return whether SELinux is on: only then its file system is known to the kernel."""
    return "nodev\tselinuxfs" in filesystems.read_text(encoding="ascii").splitlines()


def context_of(asked: str, *, on: bool) -> str:
    """Return the context to mount with, empty for none.

    Args:
        asked: What kubelet passed for the pod, empty when it passed nothing.
        on: Whether SELinux is on; the kernel knows no context where it is not.

    Raises:
        InvalidMessage: `asked` is no context. Nothing else may come into the mount call.
    """
    if asked and not _CONTEXT.fullmatch(asked):
        message = f"selinux_context {asked!r} is not of the form USER:ROLE:TYPE[:LEVEL]"
        raise InvalidMessage(message)
    return (asked or DEFAULT_CONTEXT) if on else ""

"""A published volume, as the node server asks for it and hears of it."""

from typing import Final

import attrs

from fusefs import protocol
from fusefs.snapshot import Snapshot


@attrs.frozen(kw_only=True)
class VolumeOptions:
    """What a volume shall be.

    Attributes:
        filesystem: Which file system; `auto` is FUSE, or a tmpfs where FUSE cannot be had.
        user_namespace: Whether the pod has a user namespace of its own.
        selinux_context: Its label; empty for the node's default.
    """

    filesystem: protocol.WantedFilesystem = "auto"
    user_namespace: bool = False
    selinux_context: str = ""


@attrs.frozen(kw_only=True)
class Shown:
    """What a published volume is.

    Attributes:
        filesystem: Which file system.
        reason: Why it is a tmpfs although it might be FUSE; empty otherwise.
        restart: Containers that see what was there before until they are restarted.
    """

    filesystem: protocol.Filesystem
    reason: str = ""
    restart: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class PublishedVolume:
    """A volume as the keeper has it.

    Attributes:
        record: What the node server that published it wanted its successor to know.
        worker_pid: None while a worker is being replaced, and for a tmpfs.
        filesystem: Which file system.
        reason: Why it is a tmpfs although it might be FUSE; empty otherwise.
        snapshot: Its newest generation; the caller closes it. None unless asked for.
    """

    volume_id: str
    target: str
    generation: int
    record: bytes
    worker_pid: int | None
    filesystem: protocol.Filesystem = "fuse"
    reason: str = ""
    snapshot: Snapshot | None


DEFAULTS: Final = VolumeOptions()

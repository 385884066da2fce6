"""Which file system a volume gets: FUSE where it can be had, else a tmpfs."""

import errno
import os
from typing import Final

import attrs

from fusefs import protocol
from fusefs.connection import Connection
from fusefs.errors import FusefsError, KernelUnsupported, OverBudget

WORKER_BYTES: Final = 8 << 20  # a worker's own memory, and what its volume takes in the keeper
FOUND: Final = "its target held a tmpfs already, which a pod may be using"
_NO_DEVICE: Final = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EPERM, errno.EACCES)


@attrs.frozen(kw_only=True)
class Choice:
    """What a volume gets.

    Attributes:
        filesystem: The file system.
        reason: Why it is a tmpfs although it might be FUSE; empty otherwise.
        found: Whether it is at the target already.
    """

    filesystem: protocol.Filesystem
    reason: str = ""
    found: bool = False


@attrs.frozen(kw_only=True)
class Request:
    """What is asked for, and what there is.

    Attributes:
        wanted: As the node server says.
        found: Whether the target shows a tmpfs volume.
        needed_bytes: What a FUSE volume would take.
        free_bytes: What is left of the memory budget, None without one.
        required_flags: INIT flags that the kernel must offer.
    """

    wanted: protocol.WantedFilesystem
    found: bool
    needed_bytes: int
    free_bytes: int | None
    required_flags: int


def choose(request: Request, private: str) -> Choice:
    """Return what a volume gets; `private` is a path for a mount on trial.

    Raises:
        KernelUnsupported: FUSE is wanted, and nothing else, but cannot be had.
        OverBudget: The same, for lack of memory.
    """
    if request.found:
        return Choice(filesystem="tmpfs", reason=FOUND, found=True)
    if request.wanted == "tmpfs":
        return Choice(filesystem="tmpfs")
    obstacle = _obstacle(request, private)
    if obstacle is None:
        return Choice(filesystem="fuse")
    if request.wanted == "fuse":
        raise obstacle
    return Choice(filesystem="tmpfs", reason=str(obstacle))


def _obstacle(request: Request, private: str) -> KernelUnsupported | OverBudget | None:
    """Return why there can be no FUSE volume."""
    if request.free_bytes is not None and request.needed_bytes > request.free_bytes:
        return OverBudget(
            f"of the keeper's --memory-limit {request.free_bytes} bytes are left, a volume needs "
            f"{request.needed_bytes}; raise it and the limit of its container (keeper.memory)"
        )
    return _mount_on_trial(private, request.required_flags)


def _mount_on_trial(private: str, required_flags: int) -> KernelUnsupported | None:
    try:
        connection = Connection.open(private)
    except (OSError, FusefsError) as error:
        return KernelUnsupported(f"FUSE cannot be had: {_describe(error)}")
    try:
        connection.require(required_flags)
    except KernelUnsupported as error:
        return error
    finally:
        connection.close()
    return None


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _NO_DEVICE and not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse; load the kernel module fuse and run the keeper privileged"
    return str(error)

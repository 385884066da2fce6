"""Giving up privileges: workers, and the children that touch a mount.

The order matters: root directory first, while it may still be changed; groups
before the uid change, which forbids it; the bounding set while CAP_SETPCAP is there; the death
signal after the uid change, which clears it. uid 0 without capabilities would be no sandbox: it
owns files.
"""

import logging
import os
import resource
import signal
from collections.abc import Iterable
from typing import Final

import attrs

from fusefs import syscalls

log = logging.getLogger(__name__)

CAP_CHOWN: Final = 0
CAP_DAC_OVERRIDE: Final = 1
CAP_FOWNER: Final = 3
_LAST_CAPABILITY: Final = 63
_PROCESSES: Final = 1  # no more of this uid than there are
_ADDRESS_SPACE: Final = 2 << 30  # bytes; interpreter and libraries map about 0.3 GiB


@attrs.frozen(kw_only=True)
class Identity:
    """What a sandboxed process may be.

    Attributes:
        uid: User and group id; nobody else on the node has it.
        capabilities: Those kept.
    """

    uid: int
    capabilities: tuple[int, ...] = ()


def keep_only(descriptors: Iterable[int]) -> None:
    """Close every descriptor of this process except `descriptors` and the standard ones."""
    keep = sorted({0, 1, 2, *descriptors})
    for low, high in zip(
        keep, [*keep[1:], resource.getrlimit(resource.RLIMIT_NOFILE)[1]], strict=True
    ):
        os.closerange(low + 1, high)


def empty_root() -> int:
    """Return a descriptor of a detached, empty, read-only tmpfs to confine processes to."""
    context = syscalls.fsopen("tmpfs")
    try:
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "size", "4k")
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "mode", "0555")
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FLAG, "ro")
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        attributes = (
            syscalls.MOUNT_ATTR_RDONLY
            | syscalls.MOUNT_ATTR_NOSUID
            | syscalls.MOUNT_ATTR_NODEV
            | syscalls.MOUNT_ATTR_NOEXEC
        )
        return syscalls.fsmount(context, attributes)
    finally:
        os.close(context)


def confine(root: int) -> None:
    """Make the directory `root` the whole file system; the descriptor is closed."""
    os.fchdir(root)
    os.chroot(".")
    os.close(root)


def isolate() -> None:
    """Leave network and IPC behind. Too dear for what lives some ms: the kernel cleans up later."""
    syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC)


def drop_privileges(identity: Identity, *, parent: int) -> None:
    """Become `identity` for good, to die with the process `parent`.

    Raises:
        OSError: A step was refused; the process must end.
        ProcessLookupError: `parent` is gone already.
    """
    os.setgroups([])
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, int(bool(identity.capabilities)))
    _drop_bounding_set()
    os.setresgid(identity.uid, identity.uid, identity.uid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    syscalls.capset(sum(1 << capability for capability in identity.capabilities))
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if os.getppid() != parent:
        message = "the keeper is gone"
        raise ProcessLookupError(message)


def _drop_bounding_set() -> None:
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, capability)
        except OSError:
            if capability == 0:
                raise
            return  # EINVAL: past the last capability of this kernel


def forbid_core_files() -> None:
    """Keep memory off the disk: no core file, and none for a collector, which knows no limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def raise_limits() -> None:
    """Let the keeper hold every generation, and its workers map those in secret memory."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    most = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    anything = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, anything)
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
        log.warning(
            "a worker can map %d bytes of secret memory and no more: RLIMIT_MEMLOCK cannot be "
            "raised; run the keeper privileged (CAP_SYS_RESOURCE)",
            most,
        )


def limit() -> None:
    """Bound what a worker, or a child that touches its mount, could take from the node."""
    forbid_core_files()
    resource.setrlimit(resource.RLIMIT_NPROC, (_PROCESSES, _PROCESSES))
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))

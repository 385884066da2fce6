"""How a keeper is started, and what is checked before it serves."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import attrs

from fusefs.errors import CannotStart

MAX_VOLUMES: Final = 1000  # of one node; kubelet's default is 110 pods
ACCOUNTS_FILE: Final = "/etc/passwd"
MAX_WAITING: Final = 4  # generations of one volume; each is locked in memory
PER_SECOND: Final = 10_000  # requests of one volume, a fifth of a processor; a read takes four
SUCCESSOR_PATIENCE_S: Final = 30.0  # longer than another pod takes to start
KEEPER_BYTES: Final = 64 << 20  # supervisor, keeper, and children that touch and look
_MAX_UID: Final = 2**32 - 2

Takeover = Literal["auto", "resend", "journal"]


@attrs.frozen(kw_only=True)
class Config:
    """How the keeper is started.

    Attributes:
        socket: Path of the control socket; its directory is made 0700.
        kubelet_root: kubelet's root directory.
        driver: The CSI driver name that ``vol_data.json`` must have.
        worker_uid_base: Workers get this uid and the following ones.
        passwd_file: The node's accounts, none of which may have a worker's uid.
        ready_file: Is there while the keeper serves.
        required_flags: INIT flags without which no volume is mounted.
        takeover: How a worker comes to what its predecessor had in work: the kernel sends it again,
            it stands in a journal, or whichever of these the kernel allows.
        per_second: How many requests of one volume are served in a second.
        rank: When the supervisor was started, in nanoseconds since the node was; a keeper takes
            over from those that are not younger.
        successor_patience: Seconds that a keeper which is asked to end waits for a successor.
        memory_budget: Bytes that all volumes may take before `auto` means a tmpfs; None for any.
    """

    socket: str
    kubelet_root: str
    driver: str = "secrets-store.csi.k8s.io"
    worker_uid_base: int = 2_000_000_000
    passwd_file: str = ACCOUNTS_FILE
    ready_file: str | None = None
    required_flags: int = 0
    takeover: Takeover = "auto"
    per_second: int = PER_SECOND
    memory_budget: int | None = None
    rank: int = 0
    successor_patience: float = SUCCESSOR_PATIENCE_S


def budget_of_volumes(memory_limit: int | None) -> int | None:
    """Return what a limit leaves for volumes; without a limit there is no budget."""
    return None if memory_limit is None else max(0, memory_limit - KEEPER_BYTES)


def check_privileges() -> None:
    """Raise `CannotStart` when this process could not mount anything."""
    if os.geteuid() != 0:
        message = "the keeper must run as root, since it mounts volumes"
        raise CannotStart(message)


def check_uid_base(base: int, passwd_file: str = ACCOUNTS_FILE) -> None:
    """Raise `CannotStart` when workers' uids would not be their own.

    A uid that an account of the node has would let that account's processes signal a worker. In a
    container `passwd_file` has to be the node's.
    """
    if not 0 < base <= _MAX_UID - MAX_VOLUMES:
        message = f"--worker-uid-base must be from 1 to {_MAX_UID - MAX_VOLUMES}"
        raise CannotStart(message)
    taken = range(base, base + MAX_VOLUMES)
    for name, uid in _accounts(passwd_file):
        if uid in taken:
            message = (
                f"--worker-uid-base {base}: the account {name!r} in {passwd_file} has uid {uid}, "
                f"and workers need {MAX_VOLUMES} uids from {base} on that nobody has; "
                "give another base"
            )
            raise CannotStart(message)


def _accounts(passwd_file: str) -> Iterator[tuple[str, int]]:
    """Yield name and uid of each account in a file as passwd(5) describes it."""
    try:
        lines = Path(passwd_file).read_text("utf-8", "replace").splitlines()
    except OSError as error:
        message = f"--passwd-file {passwd_file}: {error.strerror}; give the node's /etc/passwd"
        raise CannotStart(message) from error
    for line in lines:
        name, _, uid, *_ = [*line.split(":"), "", "", ""]
        if uid.isdecimal():  # not so in comments and in references to a directory service
            yield name, int(uid)

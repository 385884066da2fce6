"""How a keeper is started, and what is checked before it serves."""

import os
import pwd
from typing import Final

import attrs

from fusefs import initmsg
from fusefs.errors import CannotStart

MAX_VOLUMES: Final = 1000  # of one node; kubelet's default is 110 pods
MAX_WAITING: Final = 4  # generations of one volume; each is locked in memory
_MAX_UID: Final = 2**32 - 2


@attrs.frozen(kw_only=True)
class Config:
    """How the keeper is started.

    Attributes:
        socket: Path of the control socket; its directory is made 0700.
        kubelet_root: kubelet's root directory.
        driver: The CSI driver name that ``vol_data.json`` must have.
        worker_uid_base: Workers get this uid and the following ones.
        required_flags: INIT flags without which no volume is mounted.
    """

    socket: str
    kubelet_root: str
    driver: str = "secrets-store.csi.k8s.io"
    worker_uid_base: int = 2_000_000_000
    required_flags: int = initmsg.FUSE_HAS_RESEND


def check_privileges() -> None:
    """Raise `CannotStart` when this process could not mount anything."""
    if os.geteuid() != 0:
        message = "the keeper must run as root, since it mounts volumes"
        raise CannotStart(message)


def check_uid_base(base: int) -> None:
    """Raise `CannotStart` when workers' uids would not be their own.

    A uid that an account of the node has would let that account's processes signal a worker.
    """
    if not 0 < base <= _MAX_UID - MAX_VOLUMES:
        message = f"--worker-uid-base must be from 1 to {_MAX_UID - MAX_VOLUMES}"
        raise CannotStart(message)
    taken = range(base, base + MAX_VOLUMES)
    for account in pwd.getpwall():
        if account.pw_uid in taken:
            message = (
                f"--worker-uid-base {base}: uid {account.pw_uid} belongs to the account "
                f"{account.pw_name!r}"
            )
            raise CannotStart(message)

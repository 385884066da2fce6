"""No core file: a crash must not write to disk what the process holds in memory.

`csi` and `provider` each have this module, because neither may import the other.
"""

import ctypes
import os
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def forbid() -> None:
    """Make this process one that the kernel never dumps, to a file or to a collector.

    The limit alone is not enough: the kernel does not apply it where `core_pattern` is a pipe.

    Raises:
        OSError: The kernel refused; it knows no reason to.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, *(ctypes.c_ulong(0),) * 4) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "PR_SET_DUMPABLE")

"""The lease of a node: of all keepers that run, the one that holds it serves."""

import fcntl
import os
from pathlib import Path
from typing import Final

NAME: Final = "lease"


class Lease:
    """A lock in the control directory; the kernel lets go of it when its holder dies."""

    def __init__(self, directory: str) -> None:
        """Open the file of the lease in `directory`, which is made for uid 0 only."""
        Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(directory, 0o700)
        self._descriptor = os.open(
            f"{directory}/{NAME}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        self.held = False

    def take(self) -> bool:
        """Return whether this process holds the lease now, without waiting for it."""
        if not self.held:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self.held = True
        return True

    def release(self) -> None:
        """Let another keeper serve."""
        if self.held:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.held = False

    def close(self) -> None:
        """Close the file, which releases the lease."""
        os.close(self._descriptor)

"""The node's machine as seen from outside: boot, halt, and how to run programs in it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import leftovers
from cluster import guard
from cluster.addresses import ADDRESS, NODE, SERVICE_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BOOT_TIMEOUT_S: Final = 30.0  # it takes a tenth of a second
HALT_TIMEOUT_S: Final = 120.0  # a second, but for a disk that is busy with something else
UNFIT: Final = " ,\\"  # of these an overlay cannot be mounted
SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class MachineFailed(AssertionError):
    """The machine did not boot, did not halt, or left something; the message says what."""


class Machine:
    """A set of namespaces with a root, a network and processes of its own.

    Attributes:
        folder: Everything that the node writes. It is gone after `halt`.
    """

    def __init__(self, folder: Path, *, layers: Sequence[Path], programs: Path, log: Path) -> None:
        """Describe the machine; it does not run yet.

        Args:
            folder: Must exist, with the configuration in `etc/`.
            layers: What the root is made of, highest first.
            programs: Kubernetes' programs.
            log: Told what goes wrong outside any program.
        """
        self.folder = folder
        self._log = log
        self._setting = {
            **_plain_environment(),
            "MACHINE": str(folder),
            "LAYERS": ":".join(map(str, layers)),
            "PROGRAMS": str(programs),
            "NODE": NODE,
            "ADDRESS": ADDRESS,
            "SERVICE_ADDRESS": SERVICE_ADDRESS,
        }
        self._guard: subprocess.Popen[bytes] | None = None
        self.init = 0
        self.environment: Mapping[str, str] = {}

    @property
    def guard_pid(self) -> int:
        """The process that ends the machine when its owner is gone.

        Raises:
            MachineFailed: The machine does not run.
        """
        if self._guard is None:
            message = "the machine does not run"
            raise MachineFailed(message)
        return self._guard.pid

    def boot(self) -> None:
        """Make the namespaces and everything in them that is there before programs run.

        Raises:
            MachineFailed: It did not come up.
        """
        for path in (self._setting[name] for name in ("MACHINE", "PROGRAMS", "LAYERS")):
            if set(path) & set(UNFIT):
                message = (
                    f"{path} has a space, a comma or a backslash; set TMPDIR or XDG_CACHE_HOME"
                )
                raise MachineFailed(message)
        with self._log.open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-m", "cluster.guard", str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                env={**self._setting, "PYTHONPATH": str(Path(__file__).parents[1])},
                start_new_session=True,  # out of reach of a Ctrl-C that is meant for us
            )
        line = self._first_line()
        if not line:
            self._guard.kill()
            self._guard.wait()
            self._guard = None
            message = f"the machine did not boot:\n{self._said()}"
            raise MachineFailed(message)
        report = json.loads(line)
        self.init = report["init"]
        self.environment = {
            **_plain_environment(),
            "INIT": str(self.init),
            "CGROUPS": " ".join(report["cgroups"]),
        }

    def halt(self, *, keep: bool = False) -> None:
        """End everything in the machine at once, as a power cut does; twice is no mistake.

        Args:
            keep: Leave the folder, so that `boot` can follow.

        Raises:
            MachineFailed: Something could not be ended or removed.
        """
        if self._guard is None:
            return
        ending, self._guard = self._guard, None
        try:
            ending.communicate(guard.KEEP if keep else b"", timeout=HALT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            ending.kill()
            ending.wait()
        if ending.returncode:
            message = f"the machine did not end cleanly:\n{self._said()}"
            raise MachineFailed(message)

    def inside(self, *command: str) -> list[str]:
        """Return the arguments that run a program on the node (with `environment`)."""
        return [str(guard.SCRIPT), "inside", *command]

    def beside(self, *command: str) -> list[str]:
        """Return the arguments that run one of this machine's programs in the node's network."""
        return [str(guard.SCRIPT), "beside", *command]

    def _first_line(self) -> bytes:
        if self._guard is None or self._guard.stdout is None:
            return b""
        ready, _, _ = select.select([self._guard.stdout], [], [], BOOT_TIMEOUT_S)
        return self._guard.stdout.readline() if ready else b""

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


def _plain_environment() -> dict[str, str]:
    """Return what the node's programs get to see of this process's environment."""
    marker = (
        {leftovers.MARKER: os.environ[leftovers.MARKER]} if leftovers.MARKER in os.environ else {}
    )
    return {"PATH": SEARCH_PATH, "HOME": "/root", "LANG": "C.UTF-8", **marker}

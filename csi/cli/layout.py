"""Where everything of a run lies.

A socket's path may have 107 bytes and no more, which a folder of somebody's choosing may exceed. If
so, the sockets lie in a folder of the run below /run; everything else always lies in the folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs

INDEX: Final = "playground.json"
FOLDERS: Final = ("kubelet", "emulator", "classes", "logs", "pod")
SOCKET_FOLDERS: Final = ("keeper", "csi", "providers")
CONTROL_SOCKET: Final = "playground.sock"
EMULATOR_CONFIG: Final = "emulator.yaml"

_RUN: Final = Path("/run")
_MAX_PATH_BYTES: Final = 107  # sun_path of unix(7), less the final NUL
_HIDDEN_BYTES: Final = len("..4194304")  # on top of the name until a socket is put in place
_LONGEST: Final = len("/providers/azure.sock")


@attrs.frozen(kw_only=True)
class Workspace:
    """Where everything of a run lies.

    Attributes:
        root: The folder, without links in its path.
        run: The marker of the run's processes.
    """

    root: Path
    run: str

    @property
    def sockets(self) -> Path:
        """The folder of the folders with sockets."""
        if len(os.fsencode(self.root)) + _LONGEST + _HIDDEN_BYTES <= _MAX_PATH_BYTES:
            return self.root
        return _RUN / f"akvfs-{self.run[:12]}"

    @property
    def kubelet(self) -> Path:
        """Kubelet's root directory, a shared mount."""
        return self.root / "kubelet"

    @property
    def keeper_socket(self) -> Path:
        """The keeper's control socket."""
        return self.sockets / "keeper" / "keeper.sock"

    @property
    def csi_socket(self) -> Path:
        """Where kubelet calls the node server."""
        return self.sockets / "csi" / "csi.sock"

    @property
    def providers(self) -> Path:
        """The folder in which providers have their sockets."""
        return self.sockets / "providers"

    @property
    def provider_socket(self) -> Path:
        """Where the node server calls the provider."""
        return self.providers / "azure.sock"

    @property
    def emulator(self) -> Path:
        """Where the emulator describes itself."""
        return self.root / "emulator"

    @property
    def emulator_config(self) -> Path:
        """What the emulator starts with."""
        return self.root / EMULATOR_CONFIG

    @property
    def classes(self) -> Path:
        """The SecretProviderClasses."""
        return self.root / "classes"

    @property
    def pod(self) -> Path:
        """A folder for the container that the demo plays."""
        return self.root / "pod"

    @property
    def index(self) -> Path:
        """What the playground says about itself."""
        return self.root / INDEX

    @property
    def control_socket(self) -> Path:
        """Where `akvfs playground set` calls."""
        return self.sockets / CONTROL_SOCKET

    def log(self, program: str) -> Path:
        """Return the log of a program."""
        return self.root / "logs" / f"{program}.log"

    def logs(self) -> list[Path]:
        """Return the logs that there are."""
        return sorted((self.root / "logs").glob("*.log"))

    def replace(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        """Put a file in place, complete from the first moment."""
        hidden = path.with_name(f".{path.name}.new")
        fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(fd, "wb") as stream:  # noqa: PTH123 - a descriptor
            stream.write(content)
        hidden.rename(path)

"""The files that tell clients where the emulator is, in one directory.

Each is replaced by rename, and removed at the end only if it is still the one that was written: a
successor in the same directory may have replaced it. None holds a secret of a vault.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import attrs
import msgspec

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from provider.emulator.state import EmulatorState

CA = "ca.pem"
CLOUD = "cloud.json"
HOSTS = "hosts"
ADMIN_TOKEN = "admin-token"  # noqa: S105 - the name of the file
INDEX = "emulator.json"  # written last: what stands there answers

_LOCALHOST = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `emulator.json`."""

    pid: int
    address: str
    port: int
    url: str  # of the admin API, by IP address
    ca_file: str
    cloud_file: str
    hosts_file: str
    admin_token_file: str
    cloud_name: str
    vault_domain: str
    login_url: str
    no_proxy: str  # what NO_PROXY must contain for clients behind a proxy
    vaults: dict[str, str]  # name to URL


@attrs.define
class Directory:
    """Writes files into one directory and takes them back."""

    path: Path
    _written: list[tuple[Path, int, int]] = attrs.field(factory=list, init=False)
    _created: bool = attrs.field(default=False, init=False)

    def __enter__(self) -> Self:
        self._created = not self.path.is_dir()
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for path, device, inode in reversed(self._written):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if (status.st_dev, status.st_ino) == (device, inode):
                    path.unlink()
        if self._created:
            with contextlib.suppress(OSError):  # somebody else's files are in it
                self.path.rmdir()

    def write(self, name: str, content: bytes, mode: int = 0o644) -> Path:
        """Put a file in place, complete from the first moment."""
        path, hidden = self.path / name, self.path / f".{name}.{os.getpid()}"
        hidden.unlink(missing_ok=True)
        fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(fd, "wb") as stream:  # noqa: PTH123 - a descriptor
            os.fchmod(fd, mode)
            stream.write(content)
            status = os.fstat(fd)
        hidden.rename(path)
        self._written.append((path, status.st_dev, status.st_ino))
        return path


def describe(directory: Directory, state: EmulatorState, ca_pem: bytes, admin_token: str) -> None:
    """Write all files; `emulator.json` last."""
    hosts = [state.login_host, *(state.host_name(vault) for vault in state.vaults.values())]
    lines = "".join(f"{state.address} {host}\n" for host in hosts)
    cloud = {
        "name": "AzureStackCloud",
        "activeDirectoryEndpoint": f"{state.login_url}/",
        "keyVaultEndpoint": f"{state.resource}/",
        "keyVaultDNSSuffix": f"{state.vault_domain}:{state.port}",
    }
    index = Index(
        pid=os.getpid(),
        address=state.address,
        port=state.port,
        url=f"https://{state.address}:{state.port}",
        ca_file=str(directory.write(CA, ca_pem)),
        cloud_file=str(directory.write(CLOUD, _json(cloud))),
        hosts_file=str(directory.write(HOSTS, (_LOCALHOST + lines).encode())),
        admin_token_file=str(directory.write(ADMIN_TOKEN, admin_token.encode(), 0o600)),
        cloud_name="AzureStackCloud",
        vault_domain=f"{state.vault_domain}:{state.port}",
        login_url=state.login_url,
        no_proxy=f".{state.vault_domain},{state.login_host},{state.address}",
        vaults={
            vault.name: f"https://{state.host_name(vault)}:{state.port}/"
            for vault in state.vaults.values()
        },
    )
    directory.write(INDEX, _json(index))


def _json(content: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"

"""Which Entra ID and which vaults a request means: the four public clouds and custom ones.

A custom cloud is described by a JSON file inside the provider's container, which the author of a
class names. The provider reads as root, so the file must lie in a directory that its operator
allows, may be no link anywhere on the way, must be small, and nothing of it or about its existence
elsewhere is told in an error. The cloud belongs to the request; no process-wide variable is set.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs

from provider.errors import InvalidRequest, Prefixed
from provider.model import Cloud

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FILE: Final = 64 * 1024  # bytes; a whole Azure environment has 3 KiB
STACK: Final = "AZURESTACKCLOUD"

_PUBLIC: Final = Cloud(
    name="AzurePublicCloud",
    authority="https://login.microsoftonline.com/",
    vault_suffix="vault.azure.net",
)
_US_GOVERNMENT: Final = Cloud(
    name="AzureUSGovernmentCloud",
    authority="https://login.microsoftonline.us/",
    vault_suffix="vault.usgovcloudapi.net",
)
_CLOUDS: Final = {
    "AZURECLOUD": _PUBLIC,
    "AZUREPUBLICCLOUD": _PUBLIC,
    "AZUREUSGOVERNMENT": _US_GOVERNMENT,
    "AZUREUSGOVERNMENTCLOUD": _US_GOVERNMENT,
    "AZURECHINACLOUD": Cloud(
        name="AzureChinaCloud",
        authority="https://login.chinacloudapi.cn/",
        vault_suffix="vault.azure.cn",
    ),
    "AZUREGERMANCLOUD": Cloud(
        name="AzureGermanCloud",
        authority="https://login.microsoftonline.de/",
        vault_suffix="vault.microsoftazure.de",
    ),
}
_FIELDS: Final = {
    "name": "name",
    "activedirectoryendpoint": "authority",
    "keyvaultdnssuffix": "vault_suffix",
}
_SUFFIX: Final = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(:[0-9]{1,5})?")
_NOT_ALLOWED: Final = "not a readable file in a directory that --cloud-files-dir allows"


@attrs.frozen(kw_only=True)
class CloudDirectory:
    """Resolves the cloud of a request.

    Attributes:
        default_name: The cloud of classes that name none.
        allowed: Directories whose files may describe custom clouds.
    """

    default_name: str = "AzurePublicCloud"
    allowed: Sequence[str] = ()

    def resolve(self, name: str, file: str) -> Cloud:
        """Return the cloud that a class names, or the default one.

        Args:
            name: `cloudName`, in any case; empty for the default.
            file: `cloudEnvFileName`; only a custom cloud reads it.

        Raises:
            InvalidRequest: unknown, or its file does not describe a cloud.
        """
        wanted = name or self.default_name
        with Prefixed(f"cloudName {wanted} is not valid, error: "):
            if wanted.upper() != STACK:
                return public_cloud(wanted)
            if not file:
                message = "open : no such file or directory"
                raise InvalidRequest(message, remedy="set the parameter cloudEnvFileName")
            return usable(parse_environment(read_allowed(file, self.allowed)))


def public_cloud(name: str) -> Cloud:
    """Return one of Microsoft's clouds by its name, in any case.

    Raises:
        InvalidRequest: there is none of that name.
    """
    cloud = _CLOUDS.get(name.upper())
    if cloud is None:
        message = (
            f'autorest/azure: There is no cloud environment matching the name "{name.upper()}"'
        )
        known = "AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, AzureStackCloud"
        raise InvalidRequest(message, remedy=f"cloudName is one of {known}")
    return cloud


def parse_environment(body: bytes) -> Cloud:
    """Read a custom cloud's description; names of fields match in any case, missing ones are empty.

    Raises:
        InvalidRequest: not a JSON object, or a field is not text. Nothing of it is quoted.
    """
    fields: dict[str, str] = dict.fromkeys(_FIELDS.values(), "")
    try:
        content: object = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        message = "the file is not a JSON object"
        raise InvalidRequest(message, remedy="see cloudEnvFileName")
    for key, value in content.items():
        field = _FIELDS.get(key.lower())
        if field is None or value is None:
            continue
        if not isinstance(value, str):
            message = f"{key} in the file is not text"
            raise InvalidRequest(message, remedy="see cloudEnvFileName")
        fields[field] = value
    return Cloud(custom=True, **fields)


def usable(cloud: Cloud) -> Cloud:
    """Return a custom cloud in which something can be reached.

    Raises:
        InvalidRequest: a field is missing, or cannot be part of an address.
    """
    try:
        authority = urlsplit(cloud.authority)
        plain = authority.scheme == "https" and authority.hostname and "@" not in authority.netloc
        plain = plain and not (authority.query or authority.fragment)
    except ValueError:
        plain = False
    if not plain:
        message = "activeDirectoryEndpoint in the file is not an https URL"
        raise InvalidRequest(message, remedy="give it as https://login.example/")
    if not _SUFFIX.fullmatch(cloud.vault_suffix):
        message = "keyVaultDNSSuffix in the file is not a domain"
        raise InvalidRequest(message, remedy="give it as vault.example, without a leading dot")
    return cloud


def read_allowed(path: str, allowed: Sequence[str]) -> bytes:
    """Read a file that lies in one of the allowed directories, without following a link.

    Raises:
        InvalidRequest: it does not, or cannot be read. What is wrong is not told: the answer
            would otherwise say what exists outside.
    """
    wanted = PurePosixPath(path)
    for directory in map(PurePosixPath, allowed):
        if wanted.is_relative_to(directory) and wanted != directory and ".." not in wanted.parts:
            with contextlib.suppress(OSError, ValueError):
                return _read_beneath(str(directory), wanted.relative_to(directory).parts)
    message = f"open {path}: {_NOT_ALLOWED}"
    raise InvalidRequest(message, remedy="a regular file of at most 64 KiB, reached without links")


def _read_beneath(directory: str, parts: Sequence[str]) -> bytes:
    """Walk from a directory to a file, each step relative to a held descriptor.

    Raises:
        OSError: a step is a link, or not what it must be.
    """
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            deeper = os.open(part, flags, dir_fd=held)
            os.close(held)
            held = deeper
        # O_NONBLOCK: a fifo must not hold this thread.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(parts[-1], flags, dir_fd=held)
    finally:
        os.close(held)
    with open(file, "rb") as stream:  # noqa: PTH123  a descriptor, not a path
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode):
            message = "not a regular file"
            raise OSError(message)
        content = stream.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        message = f"larger than {MAX_FILE} bytes"
        raise OSError(message)
    return content

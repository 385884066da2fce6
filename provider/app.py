"""The program: what is made from the flags, in which order it starts and stops."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import signal
from typing import TYPE_CHECKING, Final

import attrs

from provider import readyfile
from provider.azure.clouds import STACK, CloudDirectory, public_cloud
from provider.azure.credentials import FreshIdentities
from provider.azure.keyvault import KeyVaults
from provider.azure.transport import new_session
from provider.errors import InvalidRequest
from provider.mounts import Mounter
from provider.server import serving, socket_path
from provider.service import ProviderService

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


@attrs.frozen(kw_only=True)
class Config:
    """What the flags say.

    Attributes:
        endpoint: Where to serve.
        cloud_name: The cloud of classes that name none.
        cloud_files: Directories whose files may describe custom clouds.
        ready_file: Is there while the provider serves.
    """

    endpoint: str
    cloud_name: str
    cloud_files: tuple[str, ...]
    ready_file: Path | None = None


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is at work and return.

    Raises:
        InvalidRequest: a flag or the environment has an impossible value.
    """
    readyfile.withdraw(config.ready_file)
    path = socket_path(config.endpoint)
    check_default_cloud(config.cloud_name)
    for directory in config.cloud_files:
        if not os.path.isabs(directory):  # noqa: PTH117  a string, compared as it is written
            message = f"--cloud-files-dir {directory} is not an absolute path"
            raise InvalidRequest(message)
    # Blocked before the first thread starts: threads inherit it, and sigwait is the one receiver.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    version = program_version()
    with new_session() as session:
        vaults = KeyVaults(
            session=session,
            identities=FreshIdentities(session=session),
            user_agent=f"akvfs/{version}",
        )
        clouds = CloudDirectory(default_name=config.cloud_name, allowed=config.cloud_files)
        service = ProviderService(Mounter(clouds=clouds, vaults=vaults), version=version)
        with serving(service, path), readyfile.shown(config.ready_file):
            received = signal.sigwait(_STOP_SIGNALS)
            log.info("received %s", signal.Signals(received).name)


def check_default_cloud(name: str) -> None:
    """Check the cloud of classes that name none; a custom one is described by each class.

    Raises:
        InvalidRequest: there is no cloud of that name.
    """
    if name.upper() != STACK:
        public_cloud(name)


def program_version() -> str:
    """Return the version of this distribution, 0.0.0 in a tree that is not installed."""
    try:
        return importlib.metadata.version("akvfs")
    except importlib.metadata.PackageNotFoundError:
        return "0.0.0"

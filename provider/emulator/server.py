"""The emulator as a task: listen, describe itself in a directory, serve until cancelled."""

from __future__ import annotations

import functools
import ipaddress
import logging
import secrets
from typing import TYPE_CHECKING

import trio

from provider.emulator import connection, files
from provider.emulator.certificates import kept_key, make_identity
from provider.emulator.dispatch import Dispatcher
from provider.emulator.errors import ConfigInvalid
from provider.emulator.state import LOOPBACK, EmulatorState

if TYPE_CHECKING:
    from pathlib import Path

    from provider.emulator.config import EmulatorConfig

log = logging.getLogger(__name__)

_ADDRESS = "--address"


async def serve(
    config: EmulatorConfig,
    directory: Path,
    port: int = 0,
    *,
    address: str = LOOPBACK,
    ca_key_file: Path | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started when `emulator.json` is in place.

    Args:
        config: Checked configuration.
        directory: Where the files go; made when missing. What was written is removed at the end.
        port: Port on `address`; 0 takes a free one.
        address: One address of this machine, which clients reach it by; loopback is for this
            machine only.
        ca_key_file: Holds the authority's private key, and is made if it is not there; without
            it the key is never on a disk, and a restart has another authority.
        task_status: As `trio.Nursery.start` wants it.

    Raises:
        OSError: The port is taken, or the directory cannot be written.
        ConfigInvalid: A first secret breaks a limit of the service, or an argument cannot be.
    """
    check_address(address)
    ca_key = kept_key(ca_key_file) if ca_key_file else None
    (listener,) = await trio.open_tcp_listeners(port, host=address)
    with listener.socket, files.Directory(directory) as described:
        state = EmulatorState(config, listener.socket.getsockname()[1], address=address)
        hosts = [state.login_host, *(state.host_name(vault) for vault in state.vaults.values())]
        identity = make_identity(hosts, address=address, ca_key=ca_key)
        admin_token = secrets.token_urlsafe(32)
        dispatcher = Dispatcher(state=state, admin_token=admin_token)
        handler = functools.partial(
            connection.serve, context=identity.context, respond=dispatcher.respond
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, handler, [listener])
            files.describe(described, state, identity.ca_pem, admin_token)
            log.info("emulator serves", extra={"port": state.port})
            task_status.started()


def check_address(address: str) -> None:
    """Check that an address is one that clients can be sent to.

    Raises:
        ConfigInvalid: It is none, or stands for all of them.
    """
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        problem = f"{address} is not an IPv4 address: give one of this machine's"
        raise ConfigInvalid(_ADDRESS, problem) from None
    if parsed.is_unspecified or parsed.is_multicast:
        problem = f"{address} leads nowhere: give the address that clients reach, as a pod's own"
        raise ConfigInvalid(_ADDRESS, problem)

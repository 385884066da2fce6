"""The emulator as a task: listen, describe itself in a directory, serve until cancelled."""

from __future__ import annotations

import functools
import logging
import secrets
from typing import TYPE_CHECKING

import trio

from provider.emulator import connection, files
from provider.emulator.certificates import make_identity
from provider.emulator.dispatch import Dispatcher
from provider.emulator.state import EmulatorState

if TYPE_CHECKING:
    from pathlib import Path

    from provider.emulator.config import EmulatorConfig

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


async def serve(
    config: EmulatorConfig,
    directory: Path,
    port: int = 0,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started when `emulator.json` is in place.

    Args:
        config: Checked configuration.
        directory: Where the files go; made when missing. What was written is removed at the end.
        port: Port on 127.0.0.1; 0 takes a free one.
        task_status: As `trio.Nursery.start` wants it.

    Raises:
        OSError: The port is taken, or the directory cannot be written.
        ConfigInvalid: A first secret breaks a limit of the service.
    """
    (listener,) = await trio.open_tcp_listeners(port, host=LOOPBACK)
    with listener.socket, files.Directory(directory) as described:
        state = EmulatorState(config, listener.socket.getsockname()[1])
        hosts = [state.login_host, *(state.host_name(vault) for vault in state.vaults.values())]
        identity = make_identity(hosts)
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

"""`python -m provider.emulator --dir DIR --config FILE.yaml`."""

from __future__ import annotations

import functools
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from provider.emulator.config import EmulatorConfig
from provider.emulator.errors import ConfigInvalid
from provider.emulator.server import serve
from provider.emulator.state import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@click.command()
@click.option(
    "--dir",
    "directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where ca.pem, cloud.json, hosts and emulator.json go.",
)
@click.option(
    "--config",
    "config_file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="YAML file: tenant, principals, vaults and their first secrets.",
)
@click.option(
    "--address",
    default=LOOPBACK,
    show_default=True,
    help="The one IPv4 address to serve on, which the hosts file and the certificate then name. "
    "This is a test tool: anything but loopback is for isolated networks only.",
)
@click.option("--port", default=0, show_default="a free one", type=click.IntRange(0, 65535))
@click.option(
    "--ca-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the authority's private key in this file, made with mode 0600 if it is not there, "
    "so that clients trust the emulator again after a restart.  [default: in memory]",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
)
def main(
    *,
    directory: Path,
    config_file: Path,
    address: str,
    port: int,
    ca_key_file: Path | None,
    log_level: str,
) -> None:
    """Serve a small Key Vault and Entra ID until SIGTERM."""
    logging.basicConfig(
        level=log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        config = EmulatorConfig.load(config_file)
        serving = functools.partial(serve, address=address, ca_key_file=ca_key_file)
        trio.run(_run, functools.partial(serving, config, directory.absolute(), port))
    except (ConfigInvalid, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _run(serving: Callable[..., Awaitable[None]]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(serving)
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()

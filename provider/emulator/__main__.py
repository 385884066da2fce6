"""`python -m provider.emulator --dir DIR --config FILE.yaml [--port N]`."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

import click
import trio

from provider.emulator.config import EmulatorConfig
from provider.emulator.errors import ConfigInvalid
from provider.emulator.server import serve


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
@click.option("--port", default=0, show_default="a free one", type=click.IntRange(0, 65535))
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
)
def main(directory: Path, config_file: Path, port: int, log_level: str) -> None:
    """Serve a small Key Vault and Entra ID on loopback until SIGTERM."""
    logging.basicConfig(
        level=log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        config = EmulatorConfig.load(config_file)
        trio.run(_run, config, directory.absolute(), port)
    except (ConfigInvalid, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _run(config: EmulatorConfig, directory: Path, port: int) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, config, directory, port)
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()

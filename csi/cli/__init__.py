"""The `akvfs` command line. Each command imports what it needs when it runs."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import click
from typing_extensions import override

from csi.cli.errors import CliError, UnknownSecret

_DIRECTORY = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="The playground's folder; made if it is missing.",
)


class _Group(click.Group):
    """Ends with the message of an error of ours, its notes above it."""

    @override
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CliError as error:
            for note in getattr(error, "__notes__", ()):
                click.echo(note, err=True)
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
@click.version_option(package_name="akvfs")
def main() -> None:
    """Azure Key Vault secrets as live files."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )


@main.command("demo")
def demo_command() -> None:
    """Show and verify, on this machine, what akvfs does (root)."""
    from csi.cli.tour import run  # noqa: PLC0415 - `playground set` starts quickly without it

    _check_machine()
    sys.exit(run())


@main.group("playground", invoke_without_command=True)
@_DIRECTORY
@click.pass_context
def playground_group(context: click.Context, directory: Path | None) -> None:
    """Run the driver against an emulated vault until SIGTERM (root)."""
    context.obj = directory
    if context.invoked_subcommand is not None:
        return
    from csi.cli.playground import run  # noqa: PLC0415 - see above

    _check_machine()
    run(_named(context, directory))


@playground_group.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("value")
@_DIRECTORY
@click.pass_context
def set_command(context: click.Context, name: str, value: str, directory: Path | None) -> None:
    """Set the secret NAME to VALUE; return when the vault has it.

    VALUE "-" is read from standard input to its end, without a line break there, and is then not
    seen in the list of processes.
    """
    from csi.cli.control import set_secret  # noqa: PLC0415 - see above

    folder = _named(context, directory or context.obj)
    if value == "-":
        value = sys.stdin.read().removesuffix("\n")
    try:
        version = set_secret(folder, name, value)
    except UnknownSecret as error:
        raise click.BadParameter(str(error), context, param_hint="NAME") from error
    click.echo(f"{name} is now version {version}")


def _named(context: click.Context, directory: Path | None) -> Path:
    if directory is None:
        raise click.MissingParameter(
            ctx=context, param_type="option", param_hint="--dir", message="name a folder"
        )
    return directory


def _check_machine() -> None:
    if os.geteuid() != 0:
        message = "it mounts filesystems: run it as root"
        raise click.ClickException(message)
    if not Path("/dev/fuse").exists():
        message = "there is no /dev/fuse; run: modprobe fuse"
        raise click.ClickException(message)

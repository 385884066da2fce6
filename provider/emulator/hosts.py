"""Other host names for one program: `… -m provider.emulator.hosts --hosts-file FILE -- COMMAND`.

The C library reads `/etc/hosts` only, so COMMAND gets a mount namespace of its own in which FILE
lies over it; the machine's file stays untouched, and nothing is left when COMMAND ends. Mounts of
the machine go on arriving in the namespace, and leaving it (it is a slave, not a private copy): a
private one would hold every unmounted file system until COMMAND ends.

Needs CAP_SYS_ADMIN. COMMAND takes the place of this process, with its pid.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import click

CLONE_NEWNS = 0x00020000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x80000

ETC_HOSTS = "/etc/hosts"
_CANNOT_RUN = 126  # what a shell says of a command that it found and could not run
_NOT_FOUND = 127

_libc = ctypes.CDLL(None, use_errno=True)  # os.unshare came with Python 3.12, os has no mount


def enter(hosts_file: Path) -> None:
    """Give the calling process a mount namespace where `hosts_file` is `/etc/hosts`.

    Raises:
        OSError: Not allowed, or one of the two files is missing.
    """
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    _mount("none", "/", MS_REC | MS_SLAVE)
    _mount(str(hosts_file), ETC_HOSTS, MS_BIND)


def _mount(source: str, target: str, flags: int) -> None:
    arguments = (os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None)
    _check(_libc.mount(*arguments), f"mount {source} on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--hosts-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What COMMAND sees as /etc/hosts.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(hosts_file: Path, command: tuple[str, ...]) -> None:
    """Run COMMAND with another /etc/hosts."""
    try:
        enter(hosts_file)
    except OSError as error:
        message = f"no other /etc/hosts for {command[0]}: {error}; run it as root"
        raise click.ClickException(message) from error
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        click.echo(f"{command[0]}: {error.strerror}", err=True)
        sys.exit(_NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT_RUN)


if __name__ == "__main__":
    main()

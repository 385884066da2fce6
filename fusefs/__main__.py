"""`python -m fusefs`: the keeper, or with ``--supervise`` the process that keeps it running."""

import logging
import sys

import click

from fusefs import readyfile, supervisor
from fusefs.config import ACCOUNTS_FILE, Config
from fusefs.errors import CannotStart


@click.command()
@click.option("--socket", required=True, help="Path of the control socket.")
@click.option("--kubelet-root", default="/var/lib/kubelet", show_default=True)
@click.option("--driver-name", default="secrets-store.csi.k8s.io", show_default=True)
@click.option(
    "--worker-uid-base",
    default=2_000_000_000,
    show_default=True,
    help="Workers run under this uid and the following ones.",
)
@click.option(
    "--passwd-file",
    default=ACCOUNTS_FILE,
    show_default=True,
    help="The node's accounts, none of which may have such a uid.",
)
@click.option("--ready-file", metavar="PATH", help="A file that is there while the keeper serves.")
@click.option("--supervise", is_flag=True, help="Start the keeper again whenever it dies.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
def main(
    *,
    socket: str,
    kubelet_root: str,
    driver_name: str,
    worker_uid_base: int,
    passwd_file: str,
    ready_file: str | None,
    supervise: bool,
    log_level: str,
) -> None:
    """Keep the mounts of a node alive."""
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    config = Config(
        socket=socket,
        kubelet_root=kubelet_root,
        driver=driver_name,
        worker_uid_base=worker_uid_base,
        passwd_file=passwd_file,
        ready_file=ready_file,
    )
    try:
        readyfile.withdraw(ready_file)
        if supervise:
            sys.exit(supervisor.supervise(supervisor.command_of_keeper(sys.argv[1:])))
        from fusefs import keeper  # noqa: PLC0415 - the supervisor stays small without it

        keeper.run(config)
    except CannotStart as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()

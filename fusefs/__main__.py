"""`python -m fusefs`: the keeper, or with ``--supervise`` the process that keeps it running."""

import logging
import sys
from typing import get_args

import click

from fusefs import initmsg, readyfile, supervisor
from fusefs.config import (
    ACCOUNTS_FILE,
    PER_SECOND,
    SUCCESSOR_PATIENCE_S,
    Config,
    Takeover,
    budget_of_volumes,
)
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
@click.option(
    "--takeover",
    type=click.Choice(get_args(Takeover)),
    default="auto",
    show_default=True,
    help="How a worker comes to the requests that its predecessor died with: the kernel sends them "
    "again (Linux 6.9 or newer), or they are noted down, which is slower.",
)
@click.option(
    "--requests-per-second",
    type=click.IntRange(min=1),
    default=PER_SECOND,
    show_default=True,
    help="How many requests of one volume are served in a second.",
)
@click.option(
    "--memory-limit",
    type=click.IntRange(min=0),
    help="Bytes that keeper and workers may take together, as their container may; when no further "
    "worker fits, new volumes are a tmpfs.  [default: none]",
)
@click.option(
    "--successor-patience",
    type=click.FloatRange(min=0),
    default=SUCCESSOR_PATIENCE_S,
    show_default=True,
    help="Seconds to wait for a successor before the volumes are frozen at the end.",
)
@click.option(
    "--rank",
    type=int,
    help="When this keeper's supervisor was started; which of two keepers is to serve.  "
    "[default: now]",
)
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
    takeover: Takeover,
    memory_limit: int | None,
    requests_per_second: int,
    successor_patience: float,
    rank: int | None,
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
        memory_budget=budget_of_volumes(memory_limit),
        required_flags=initmsg.FUSE_HAS_RESEND if takeover == "resend" else 0,
        takeover=takeover,
        per_second=requests_per_second,
        successor_patience=successor_patience,
        rank=supervisor.rank() if rank is None else rank,
    )
    try:
        readyfile.withdraw(ready_file)
        if supervise:
            sys.exit(supervisor.supervise(supervisor.command_of_keeper(sys.argv[1:])))
        from fusefs import keeper  # noqa: PLC0415 - the supervisor stays small without it

        sys.exit(keeper.run(config))
    except CannotStart as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()

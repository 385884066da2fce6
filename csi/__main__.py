"""``python -m csi``: flags, logging, the loop, the exit code."""

import logging
import resource
import sys
from collections.abc import Iterator

import trio

from csi import app, coredump, logkeys
from csi.config import Config, command
from csi.errors import ApiUnconfigured, SocketError
from csi.logs import configure

log = logging.getLogger(__name__)


def main(config: Config) -> None:
    """Run until told to stop; fail if a socket cannot be bound, or there is no cluster."""
    coredump.forbid()
    # Every generation is held, and in secret memory as far as the second limit allows.
    for limited in (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK):
        most = resource.getrlimit(limited)[1]
        resource.setrlimit(limited, (most, most))
    configure(level=config.log_level, as_json=config.log_json)
    started = True
    try:
        trio.run(app.run, config)
    except* (ApiUnconfigured, SocketError) as group:
        started = False
        for error in _leaves(group):
            log.error(  # noqa: TRY400 - the operator's, not a defect
                "cannot start", extra={logkeys.ERROR: str(error)}
            )
    if not started:  # not above: Python puts what is raised there into a group
        sys.exit(1)


def _leaves(group: BaseExceptionGroup[ApiUnconfigured | SocketError]) -> Iterator[BaseException]:
    """Yield the exceptions in a group and in the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    command(obj=main)

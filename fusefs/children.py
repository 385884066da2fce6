"""Short-lived children of the keeper: whatever may touch a mount, or take long, happens there."""

import logging
import os
import signal
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from fusefs import sandbox

log = logging.getLogger(__name__)

EXIT_FAILED: Final = 1


def fork(function: Callable[[], int]) -> int:
    """Run `function` in a child and return the child's pid; its result is the exit code."""
    pid = os.fork()
    if pid == 0:
        _run(function)
    return pid


def _run(function: Callable[[], int]) -> NoReturn:
    code = EXIT_FAILED
    try:
        code = function()
    except BaseException:  # nothing may unwind into the keeper's frames
        log.exception("a child of the keeper failed")
    finally:
        logging.shutdown()
        os._exit(code)


def reset_signals() -> None:
    """Undo the keeper's signal handling in a child."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def enter(
    descriptors: Iterable[int], identity: sandbox.Identity, *, keeper: int, directory: int
) -> None:
    """Reduce a fresh child to `descriptors`, the working directory `directory` and `identity`."""
    reset_signals()
    sandbox.keep_only([*descriptors, directory])
    sandbox.drop_privileges(identity, parent=keeper)
    os.fchdir(directory)

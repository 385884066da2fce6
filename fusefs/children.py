"""Short-lived children of the keeper: whatever may touch a mount, or take long, happens there."""

import linecache
import logging
import os
import signal
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

import attrs

from fusefs import sandbox
from fusefs.loop import Loop

log = logging.getLogger(__name__)

EXIT_FAILED: Final = 1
DEADLINE_S: Final = 20.0  # far beyond what a healthy child needs (ms)


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
    except BaseException:  # noqa: ASYNC103 - a child; nothing may unwind into the keeper's frames
        log.exception("a child of the keeper failed")
    finally:
        logging.shutdown()
        os._exit(code)


def reset_signals() -> None:
    """Undo the keeper's signal handling in a child."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)


def show_no_source() -> None:
    """Keep tracebacks from quoting source: in a new root its path may hold anything."""
    linecache.updatecache = lambda *_args, **_kwargs: []
    linecache.clearcache()


def enter(
    descriptors: Iterable[int], identity: sandbox.Identity, *, keeper: int, directory: int
) -> None:
    """Reduce a fresh child to `descriptors`, the directory `directory` as its root, and `identity`.

    The root matters: whoever serves the directory could show a link where a file is expected, and
    the child may have capabilities.
    """
    reset_signals()
    sandbox.keep_only([*descriptors, directory])
    show_no_source()
    sandbox.limit()
    sandbox.confine(directory)
    sandbox.drop_privileges(identity, parent=keeper)


@attrs.define
class Children:
    """The children of one volume: each with a deadline, none heard of after `abandon`."""

    _loop: Loop
    _pids: set[int] = attrs.field(factory=set)
    _gone: Callable[[], None] | None = None

    def start(
        self,
        function: Callable[[], int],
        ended: Callable[[int], None],
        *,
        directory: int,
        identity: sandbox.Identity,
        descriptors: Iterable[int] = (),
    ) -> None:
        """Run `function` as `identity`, in `directory`, with nothing but `descriptors`.

        Args:
            function: Returns the exit code.
            ended: Called with the exit code (negative: signal), unless abandoned.
            directory: A descriptor, which stays the caller's.
            identity: What the child may be.
            descriptors: What it keeps beside the standard ones.
        """
        keeper = os.getpid()

        def run() -> int:
            enter(descriptors, identity, keeper=keeper, directory=directory)
            return function()

        pid = fork(run)
        self._pids.add(pid)
        deadline = self._loop.call_later(DEADLINE_S, lambda: os.kill(pid, signal.SIGKILL))

        def reaped(code: int) -> None:
            deadline.cancel()
            self._pids.discard(pid)
            if self._gone is None:
                ended(code)
            elif not self._pids:
                self._gone()

        self._loop.watch_child(pid, reaped)

    def abandon(self, gone: Callable[[], None]) -> None:
        """Kill what runs, hear nothing more of it, and call `gone` once all of it is reaped."""
        self._gone = gone
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        if not self._pids:
            gone()

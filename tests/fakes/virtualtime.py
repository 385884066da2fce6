"""Hours that take no time: a test under a clock that jumps whenever every task waits."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ParamSpec

import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

P = ParamSpec("P")


def virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an asynchronous test in virtual time, which starts at 0.

    Nothing in it may wait for a thread: to the clock that looks like idleness.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        trio.run(functools.partial(test, *args, **kwargs), clock=MockClock(autojump_threshold=0))

    return run

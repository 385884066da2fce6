"""Waiting in trio for what nobody announces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAUSE_S: Final = 0.01
DEADLINE_S: Final = 15.0


async def poll(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once `condition` is true; fail after a while."""
    with trio.fail_after(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - no event tells
            await trio.sleep(PAUSE_S)


async def poll_value(read: Callable[[], object], expected: object) -> None:
    """Return once `read` gives what is expected; fail after a while."""
    with trio.fail_after(DEADLINE_S):
        while read() != expected:  # noqa: ASYNC110 - no event tells
            await trio.sleep(PAUSE_S)

"""Signals as a request to put everything back, from the first moment to the last."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType


class StopSignals:
    """Notes the first signal, also where no loop of trio runs yet or any more.

    Attributes:
        came: The first one.
    """

    def __init__(self) -> None:
        """None has come."""
        self.came: signal.Signals | None = None
        self._wake: Callable[[], None] | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals inside the block instead of ending at once."""
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup(1)
            numbers.append(signal.SIGHUP)
        before = [signal.signal(number, self._note) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    async def or_done(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work`, but cancel it when a signal comes or has come."""
        failure = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_came, nursery.cancel_scope)
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - raised below, without a group around it
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _cancel_when_came(self, scope: trio.CancelScope) -> None:
        event = trio.Event()
        token = trio.lowlevel.current_trio_token()
        self._wake = lambda: token.run_sync_soon(event.set)
        try:
            if self.came is None:
                await event.wait()
        finally:
            self._wake = None
        scope.cancel()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.came = self.came or signal.Signals(number)
        if self._wake is not None:
            self._wake()

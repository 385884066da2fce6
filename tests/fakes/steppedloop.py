"""A trio loop that runs only while it is asked to, so a state machine can hold it between steps."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, TypeVar

import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outcome import Outcome

T = TypeVar("T")


class SteppedLoop:
    """Virtual time passes, and tasks run, inside `run` only."""

    def __init__(self) -> None:
        """Start the loop; nothing runs yet."""
        self._ready: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._finished: Outcome[None] | None = None
        self._nursery: trio.Nursery | None = None
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._ready.put,
            done_callback=self._done,
            host_uses_signal_set_wakeup_fd=True,
            clock=MockClock(autojump_threshold=0),
        )
        self._pump(lambda: self._nursery is not None)

    @property
    def nursery(self) -> trio.Nursery:
        """For tasks that live across steps."""
        if self._nursery is None:
            message = "the loop has not started"
            raise RuntimeError(message)
        return self._nursery

    def run(self, step: Callable[[], Awaitable[T]]) -> T:
        """Run the loop until `step` is done; return or raise what it does."""
        results: list[T] = []
        errors: list[Exception] = []
        over = []

        async def run_step() -> None:
            try:
                results.append(await step())
            except Exception as error:  # noqa: BLE001 - handed to the caller
                errors.append(error)
            finally:
                over.append(True)

        self.nursery.start_soon(run_step)
        self._pump(lambda: bool(over))
        if errors:
            raise errors[0]
        return results[0]

    def close(self) -> None:
        """End every task and the loop."""
        self.nursery.cancel_scope.cancel()
        # A cancelled scope wakes its tasks; the loop itself is woken by whatever comes in.
        self._ready.put(lambda: None)
        self._pump(lambda: self._finished is not None)
        if self._finished is not None:
            self._finished.unwrap()

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await trio.sleep_forever()

    def _done(self, outcome: Outcome[None]) -> None:
        self._finished = outcome

    def _pump(self, until: Callable[[], bool]) -> None:
        while not until():
            self._ready.get(timeout=30)()

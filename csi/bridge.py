"""Between grpcio's threads and the trio loop, in both directions. Nothing else knows both.

Inwards: a handler runs in a thread of grpcio; `Bridge.cross` runs its coroutine in the loop, with
the caller's deadline, and cancels it when the caller goes away. Outwards: `answer_of` lets a task
await a call that grpcio makes in a thread of its own, and cancels the call with the task.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import trio

from csi.errors import CallOver, NodeStopping

# For callers that set no deadline. kubelet's is two minutes.
DEFAULT_DEADLINE_S: Final = 120.0

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class IncomingCall(Protocol):
    """What the bridge asks of a `grpc.ServicerContext`."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline; None when he set none."""
        ...

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when the call is over; False when it is over already."""
        ...


class OutgoingCall(Protocol[T_co]):
    """What grpcio gives for a call under way: `grpc.Future`, which has no type at run time."""

    def add_done_callback(self, fn: Callable[[Any], None], /) -> None:
        """Call `fn` in a thread of grpcio when the call is over."""
        ...

    def cancel(self) -> bool:
        """End the call; one that is over stays as it is."""
        ...

    def result(self) -> T_co:
        """Return the answer, or raise `grpc.RpcError`."""
        ...


def seconds_left(context: IncomingCall) -> float:
    """Return how long an answer is waited for; also grpcio's "no deadline" is cut to ours."""
    remaining = context.time_remaining()
    return DEFAULT_DEADLINE_S if remaining is None else min(remaining, DEFAULT_DEADLINE_S)


class Bridge:
    """The way from grpcio's threads into one trio loop."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        """Lead into the loop of `token`."""
        self._token = token

    def cross(self, context: IncomingCall, call: Callable[[], Awaitable[T]]) -> T:
        """Run `call` in the loop and return or raise what it does. For grpcio's threads.

        Raises:
            CallOver: The deadline passed or the caller went away before `call` was done.
            NodeStopping: The loop ends.
        """
        scope = trio.CancelScope()

        async def crossing() -> T:
            scope.deadline = trio.current_time() + seconds_left(context)
            with scope:
                return await call()
            raise CallOver(expired=trio.current_time() >= scope.deadline)

        if not context.add_callback(lambda: self.tell(scope.cancel)):
            raise CallOver(expired=False)
        try:
            return trio.from_thread.run(crossing, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled) as error:
            raise NodeStopping from error  # noqa: ASYNC104 - in a thread of gRPC, no task

    def tell(self, call: Callable[[], None]) -> None:
        """Run `call` in the loop soon, without waiting; not at all if the loop has ended."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call)


async def answer_of(start: Callable[[float], OutgoingCall[T]], timeout: float) -> T:  # noqa: ASYNC109 - it goes on the wire
    """Make a call and return its answer.

    Args:
        start: Starts the call with the given timeout and returns at once.
        timeout: Seconds after which the call ends with DEADLINE_EXCEEDED.

    Raises:
        grpc.RpcError: The call failed.
    """
    token = trio.lowlevel.current_trio_token()
    done = trio.Event()

    def wake(_: object) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    call = start(timeout)
    try:
        call.add_done_callback(wake)
        await done.wait()
    finally:
        call.cancel()
    return call.result()

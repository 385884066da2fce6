"""gRPC servers on unix sockets, with handlers in threads, opened and closed from trio.

Publishes have a thread pool of their own, of half the threads. However many of them wait for a slow
vault, an unpublish or a probe finds a thread; and a publish that waits for its turn does so in the
queue of its pool, without holding one.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import trio
from typing_extensions import override

from csi import logkeys
from csi.errors import SocketError
from csi.sockets import Claim, hidden_name

log = logging.getLogger(__name__)

GRACE_S: Final = 10.0  # for calls under way when the server stops; kubelet repeats what was cut
_STOP_S: Final = GRACE_S + 10.0

Register = Callable[[grpc.Server], None]


@asynccontextmanager
async def serving(
    path: Path,
    register: Register,
    *,
    threads: int,
    slow_methods: frozenset[str] = frozenset(),
    on_released: Callable[[], None] = lambda: None,
) -> AsyncIterator[Claim]:
    """Serve at `path` inside the block, which gets the claim to it.

    Args:
        path: The fixed path of the socket.
        register: Adds the services to the server.
        threads: How many handlers run at once.
        slow_methods: Full names of methods that get half of the threads, and only these.
        on_released: Called once the path has been removed, unless a successor has it by then.

    Raises:
        SocketError: The socket cannot be bound.
    """
    slow = ThreadPoolExecutor(max(threads // 2, 1), f"slow-{path.name}")
    fast = ThreadPoolExecutor(max(threads - threads // 2, 1), f"grpc-{path.name}")
    lane: grpc.ServerInterceptor = _Lane(slow_methods, slow)
    server = grpc.server(fast, interceptors=[lane], options=[("grpc.so_reuseport", 0)])
    try:
        register(server)
        claim = _listen(server, path)
        log.info("serving", extra={logkeys.PATH: str(path)})
        try:
            yield claim
        finally:
            # First the path, so that nobody comes while the last calls finish.
            if claim.release():
                on_released()
            await _stop(server)  # noqa: ASYNC102 - it shields itself
    finally:
        fast.shutdown(wait=False)
        slow.shutdown(wait=False)


def _listen(server: grpc.Server, path: Path) -> Claim:
    hidden = hidden_name(path)
    try:
        # grpcio removes the path that it bound when it stops; by then nothing has the hidden name.
        server.add_insecure_port(f"unix:{hidden}")
        server.start()
        return Claim.take(hidden, path)
    except (RuntimeError, OSError) as error:
        server.stop(None)
        with contextlib.suppress(OSError):
            hidden.unlink()
        message = f"cannot serve at {path}: {error}"
        raise SocketError(message) from error


async def _stop(server: grpc.Server) -> None:
    """Let calls under way finish within the grace, then cut them."""
    stopped = server.stop(GRACE_S)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _STOP_S):
        await trio.to_thread.run_sync(stopped.wait, abandon_on_cancel=True)


class _Lane(grpc.ServerInterceptor):
    """Gives some methods a thread pool of their own."""

    def __init__(self, methods: frozenset[str], pool: ThreadPoolExecutor) -> None:
        self._methods = methods
        self._pool = pool

    # In quotes: grpcio's types are generic in its stubs only.
    @override
    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        handler = continuation(handler_call_details)
        answer = None if handler is None else handler.unary_unary
        if handler is None or answer is None or handler_call_details.method not in self._methods:
            return handler

        def in_lane(request: object, context: grpc.ServicerContext) -> object:
            return answer(request, context)

        # grpcio's name for it; without it the method shares the other pool, which tests would see.
        in_lane.experimental_thread_pool = self._pool  # type: ignore[attr-defined]  # a function
        return grpc.unary_unary_rpc_method_handler(
            in_lane,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

"""Calls of kubelet that a superseded node server hands on to its successor.

A call that is under way at a takeover cannot be finished by the server that it has reached: the
keeper obeys the new one. If it failed, a pod that starts during an upgrade would have an event of
it. The successor is at the fixed path, since it serves there before it connects to the keeper.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import grpc

from csi._pb import csi_pb2_grpc
from csi.bridge import seconds_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpc import UnaryUnaryMultiCallable  # generic in its stubs only

# In the metadata of a call that was handed on: it goes no further, in a circle least of all.
_HANDED_ON: Final = "akvfs-handed-on"
_OPTIONS: Final = (("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1))

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Successor:
    """Whoever serves at the path of the CSI socket now."""

    def __init__(self, path: Path) -> None:
        """Ask at `path`."""
        self._path = path

    def ask(
        self,
        method: "Callable[[csi_pb2_grpc.NodeStub], UnaryUnaryMultiCallable[Request, Reply]]",
        request: Request,
        context: grpc.ServicerContext,
    ) -> Reply:
        """Make the call of `context` again and return its answer, in the time that is left.

        Raises:
            grpc.RpcError: The successor's error, or there is nobody at the path.
            grpc.FutureCancelledError: The caller went away.
        """
        with grpc.insecure_channel(f"unix:{self._path}", options=_OPTIONS) as channel:
            call = method(csi_pb2_grpc.NodeStub(channel)).future(
                request, timeout=seconds_left(context), metadata=((_HANDED_ON, "1"),)
            )

            def cancel() -> None:
                call.cancel()

            context.add_callback(cancel)
            return call.result()


def was_handed_on(context: grpc.ServicerContext) -> bool:
    """Return whether a call comes from a node server and not from kubelet."""
    return any(key == _HANDED_ON for key, _ in context.invocation_metadata())

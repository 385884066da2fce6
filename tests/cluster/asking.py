"""Whether somebody answers at the driver's socket, asked as kubelet asks, ten times a second."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs
import grpc

from csi._pb import csi_pb2, csi_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.node import Node

SOCKET: Final = "/var/lib/kubelet/plugins/csi-secrets-store/csi.sock"
EVERY_S: Final = 0.1
TIMEOUT_S: Final = 1.0
# A channel of an earlier question would still have a connection to whoever answered then.
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)


@attrs.define(kw_only=True)
class Answers:
    """How the questions so far went.

    Attributes:
        asked: How many there were.
        failed: How many nobody answered within a second.
        longest_failure_s: The longest time from such a question to the next answer.
        last_error: Why the last of them failed, or "-".
    """

    asked: int = 0
    failed: int = 0
    longest_failure_s: float = 0.0
    last_error: str = "-"


class _Asker:
    """Asks in a thread until told to stop, and then until there is an answer again."""

    def __init__(self, target: str) -> None:
        self.answers = Answers()
        self._target = target
        self._failing_since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asks for the plugin's name")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self._count(began, _error_of_a_question(self._target))
            self._stop.wait(max(0.0, began + EVERY_S - time.monotonic()))

    def _count(self, began: float, error: str | None) -> None:
        answers = self.answers
        answers.asked += 1
        if error is not None:
            answers.failed += 1
            answers.last_error = error
            self._failing_since = self._failing_since or began
        if self._failing_since is not None:
            lasted = time.monotonic() - self._failing_since
            answers.longest_failure_s = max(answers.longest_failure_s, lasted)
        if error is None:
            self._failing_since = None


@contextmanager
def asking(node: Node) -> Iterator[Answers]:
    """Ask for the plugin's name inside the block; afterwards the answers are complete."""
    asker = _Asker(f"unix:{node.path(SOCKET)}")
    asker.start()
    try:
        yield asker.answers
    finally:
        asker.stop()


def _error_of_a_question(target: str) -> str | None:
    """Ask with a connection of its own, as kubelet does; return why it failed, if it did."""
    with grpc.insecure_channel(target, options=_OPTIONS) as channel:
        try:
            csi_pb2_grpc.IdentityStub(channel).GetPluginInfo(
                csi_pb2.GetPluginInfoRequest(), timeout=TIMEOUT_S
            )
        except grpc.RpcError as error:
            return str(error.details() if isinstance(error, grpc.Call) else error)
    return None

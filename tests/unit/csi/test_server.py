"""The server and the bridge: two node servers on one path, a loop that ends, calls that are cut."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from csi._pb import csi_pb2
from csi.bridge import Bridge
from csi.errors import CallOver, NodeStopping, SocketError
from csi.server import serving
from fakes.kubelet import publish_message, unpublish_message
from fakes.nodeserver import served, write_class
from fakes.providersocket import provider_at

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def test_successor_takes_the_socket_without_a_gap(tmp_path: Path) -> None:
    """A second node server replaces the socket; the end of the first does not touch it."""
    async with served(tmp_path) as first:
        first_inode = (tmp_path / "csi.sock").stat().st_ino
        async with served(tmp_path, first.keeper, node_id="node-2") as second:
            assert (tmp_path / "csi.sock").stat().st_ino != first_inode
            info = await second.call(second.node.NodeGetInfo, csi_pb2.NodeGetInfoRequest())
            assert info.node_id == "node-2"
    assert not (tmp_path / "csi.sock").exists()


async def test_predecessor_that_ends_leaves_the_socket(tmp_path: Path) -> None:
    """The one that was replaced stops gracefully, and the path still leads to its successor."""
    leave, left = trio.Event(), trio.Event()

    async def first(task_status: trio.TaskStatus[None]) -> None:
        async with served(tmp_path):
            task_status.started()
            await leave.wait()
        left.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(first)
        async with served(tmp_path, node_id="node-2") as second:
            leave.set()
            await left.wait()
            info = await second.call(second.node.NodeGetInfo, csi_pb2.NodeGetInfoRequest())
            assert info.node_id == "node-2"


async def test_volumes_survive_a_restart_of_the_node_server(tmp_path: Path) -> None:
    """A second node server takes over what the first published, over real sockets."""
    write_class(tmp_path)
    with provider_at(tmp_path / "azure.sock"):
        async with served(tmp_path) as first:
            await first.call(first.node.NodePublishVolume, publish_message())
        async with served(tmp_path, first.keeper) as second:
            await second.call(second.node.NodePublishVolume, publish_message())
            assert first.keeper.calls == ["publish"]
            await second.call(second.node.NodeUnpublishVolume, unpublish_message())
    assert first.keeper.kept == {}


async def test_missing_directory_is_told(tmp_path: Path) -> None:
    """A socket that cannot be bound says where, and leaves no server behind."""
    with pytest.raises(SocketError, match="create or mount it"):
        async with serving(tmp_path / "missing" / "csi.sock", lambda _: None, threads=2):
            raise AssertionError


class _Context:
    """As much of a call's context as the bridge uses."""

    def __init__(self, remaining: float | None = None, *, over: bool = False) -> None:
        self.remaining = remaining
        self.over = over
        self.callbacks: list[Callable[[], None]] = []

    def time_remaining(self) -> float | None:
        """Return what the test says."""
        return self.remaining

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Keep the callback, unless the call is over."""
        self.callbacks.append(callback)
        return not self.over


async def _cross(context: _Context, call: Callable[[], Awaitable[None]]) -> None:
    bridge = Bridge(trio.lowlevel.current_trio_token())
    await trio.to_thread.run_sync(lambda: bridge.cross(context, call))


async def test_deadline_of_the_caller_counts_in_the_loop() -> None:
    """What runs in the loop is cancelled when the caller's time is up."""
    with pytest.raises(CallOver) as caught:
        await _cross(_Context(0.05), trio.sleep_forever)
    assert caught.value.expired


async def test_caller_who_goes_away_cancels_the_loop() -> None:
    """The end of a call ends what runs for it."""
    context, started = _Context(), trio.Event()

    async def run() -> None:
        started.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        async def expect() -> None:
            with pytest.raises(CallOver) as caught:
                await _cross(context, run)
            assert not caught.value.expired

        nursery.start_soon(expect)
        await started.wait()
        await trio.to_thread.run_sync(context.callbacks[0])


async def test_call_that_is_over_never_starts() -> None:
    """A call that ended while it waited for a thread has no effect."""
    with pytest.raises(CallOver):
        await _cross(_Context(over=True), trio.lowlevel.checkpoint)


def test_loop_that_has_ended_says_stopping() -> None:
    """A call that comes too late is told to ask the successor; its end does no harm."""
    tokens: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        await trio.lowlevel.checkpoint()
        tokens.append(trio.lowlevel.current_trio_token())

    trio.run(main)
    context = _Context()
    with pytest.raises(NodeStopping):
        Bridge(tokens[0]).cross(context, trio.lowlevel.checkpoint)
    context.callbacks[0]()


def test_call_cut_by_the_end_of_the_loop_says_stopping() -> None:
    """A loop that ends under a call answers it, instead of leaving a thread behind."""
    outcomes: list[BaseException] = []

    async def main() -> None:
        started = trio.Event()
        bridge = Bridge(trio.lowlevel.current_trio_token())

        async def run() -> None:
            started.set()
            await trio.sleep_forever()

        def call() -> None:
            try:
                bridge.cross(_Context(), run)
            except NodeStopping as error:
                outcomes.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        await started.wait()
        threads.append(thread)

    threads: list[threading.Thread] = []
    trio.run(main)
    threads[0].join(10)
    assert len(outcomes) == 1


async def test_unknown_method_is_unimplemented(tmp_path: Path) -> None:
    """A method of the CSI that the subset leaves out is answered by gRPC itself."""
    async with served(tmp_path) as node:
        method: Callable[..., object] = node.channel.unary_unary("/csi.v1.Controller/CreateVolume")
        code, _ = await node.fails(method, b"")
    assert code == "UNIMPLEMENTED"


async def test_directory_that_takes_no_socket_is_told() -> None:
    """A path where nothing can be bound is an error of ours, and leaves no server."""
    with pytest.raises(SocketError, match=r"cannot serve at /proc/csi\.sock"):
        async with serving(Path("/proc/csi.sock"), lambda _: None, threads=2):
            raise AssertionError

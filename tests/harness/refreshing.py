"""A node whose volumes are refreshed all the time, with content that says how new it is."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from fakes.providersocket import mount_response
from harness.belongings import FUSE, belongings
from harness.volumes import LIVE_FILES, content
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from harness.kubelet import PodVolume
    from harness.load import Load
    from harness.node import Node
    from provider._pb import v1alpha1_pb2

RESUMED_S: Final = 30.0
FLAGS: Final = (
    "--enable-secret-rotation",
    "--rotation-poll-interval=200ms",
    "--rotation-jitter=0",
)


class Numbered:
    """A provider's answers; each says which one it is.

    Attributes:
        number: The last one.
        problem: Called before each answer.
    """

    def __init__(self) -> None:
        """Answer without a problem."""
        self._numbers = itertools.count(1)
        self.number = 0
        self.problem: Callable[[grpc.ServicerContext], None] = lambda _: None

    def __call__(
        self, _: v1alpha1_pb2.MountRequest, context: grpc.ServicerContext
    ) -> v1alpha1_pb2.MountResponse:
        """Answer."""
        self.problem(context)
        self.number = number = next(self._numbers)  # calls run in threads
        files = {path: content(path, number) for path in LIVE_FILES}
        return mount_response(files, version=str(number))


def rotates(volume: PodVolume, running: Load) -> None:
    """Return once newer content has come in, and let no reader see older content any more."""
    now = shown(volume)
    eventually(lambda: shown(volume) > now, "content is refreshed", timeout_s=RESUMED_S)
    running.acknowledge(shown(volume))


def shown(volume: PodVolume) -> int:
    """Return the number of the answer that a volume shows on every path: this one is the last."""
    return int((volume.target / "..data/user").read_bytes()[5:13])


def left(node: Node) -> list[str]:
    """Return what is left on the node after its last volume."""
    found = node.footprint()
    children = belongings(node.class_dir.parent, [node.keeper.pid])
    fuse = children[FUSE]
    return [
        *found.mounts,
        *found.files,
        *found.volumes,
        *([f"{fuse} /dev/fuse"] if fuse else []),
        *([f"{children['processes'] - 1} processes"] if children["processes"] > 1 else []),
    ]

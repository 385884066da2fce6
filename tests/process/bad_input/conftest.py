"""One node for all rows; each row has a pod volume of its own and must leave the node as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.node import Node, running_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.kubelet import PodVolume


@pytest.fixture(scope="package")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Run a node."""
    with running_node(tmp_path_factory.mktemp("akvfs")) as node:
        yield node


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    """Provide the node; at the end nothing of the test is on it. A failure shows its log."""
    before, logged = shared_node.footprint(), len(shared_node.server.log)
    answer = shared_node.provider.answer
    yield shared_node
    print(shared_node.server.log[logged:])
    shared_node.provider.answer = answer
    assert shared_node.footprint() == before


@pytest.fixture
def volume(node: Node) -> PodVolume:
    """Provide a volume that kubelet has prepared."""
    return node.volume()

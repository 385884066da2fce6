"""A whole node whose keeper and node server die in turn: a pod that reads notices a pause."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import grpc
import pytest

from fakes.providersocket import mount_response
from harness.load import load
from harness.node import Node, running_node
from harness.nodeservers import summary
from harness.volumes import content
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.kubelet import PodVolume
    from harness.load import Report
    from harness.programs import Program

FILES: Final = ("user", "pass")
ROUNDS: Final = 3


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Run a node that refreshes its volumes every second."""
    flags = ["--enable-secret-rotation", "--rotation-poll-interval=1s", "--rotation-jitter=0"]
    with running_node(tmp_path_factory.mktemp("akvfs"), server_flags=flags) as made:
        yield made


def put(node: Node, generation: int) -> None:
    """Let the vault have new content."""
    files = {name: content(name, generation) for name in FILES}
    node.provider.answer = lambda *_: mount_response(files, version=str(generation))


def die(program: Program) -> float:
    """Kill a program and start it again; return when it died."""
    moment = time.monotonic()
    program.kill()
    program.restart()
    return moment


def mounted(node: Node) -> list[tuple[int, str]]:
    """Return each mount and its file system, by number."""
    return [(mount.number, mount.device) for mount in node.kubelet.mounts()]


def republished(node: Node, volume: PodVolume) -> bool:
    """Call as kubelet does about once a minute, which brings credentials to a new node server."""
    try:
        node.publish(volume)
    except grpc.RpcError:
        return False
    return True


@pytest.mark.timeout(120)
def test_deaths_in_turn_fail_no_read(node: Node, tmp_path: Path) -> None:
    """Each time the mount is the one that it was, and new content comes in afterwards."""
    put(node, 1)
    volume = node.volume()
    node.publish(volume)
    before = mounted(node)
    deaths: dict[str, list[float]] = {"keeper": [], "node server": []}
    reports: list[Report] = []
    places = {"live": ("live", volume.target / "user"), "data": ("pair", volume.target)}
    with load(tmp_path / "load", places) as running:
        for number in range(2, 2 + 2 * ROUNDS):
            name = "keeper" if number % 2 else "node server"
            deaths[name].append(die(node.keeper if number % 2 else node.server))
            put(node, number)
            eventually(lambda: republished(node, volume), "kubelet's next call is answered")
            eventually(
                lambda number=number: (  # type: ignore[misc]
                    (volume.target / "..data/user").read_bytes() == content("user", number)
                ),
                "the new content is shown",
            )
            running.acknowledge(number)
            assert mounted(node) == before
        reports = running.stop()
    for name, moments in deaths.items():
        print(f"\n{name}\n{summary(reports, moments)}")
    assert not any(report.faults for report in reports), summary(reports, [])
    node.unpublish(volume)
    assert not node.kubelet.mounts()

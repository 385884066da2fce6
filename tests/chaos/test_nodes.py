"""Node servers that die or are upgraded, and providers in trouble, while a volume is read."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import grpc
import pytest

from harness.load import Load, load
from harness.node import Node, is_ready, publish_request, running_node
from harness.outcomes import Outcome, outcome_of, stalls
from harness.readers import four_readers
from harness.refreshing import FLAGS, Numbered, left, rotates, shown
from harness.volumes import bind_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.kubelet import PodVolume

    Enter = Callable[[Outcome], None]

KILLS: Final = 30
UPGRADES: Final = 10
STALL_S: Final = 0.1
AROUND_S: Final = 1.0
TROUBLES: Final = 3
TROUBLE_S: Final = 2.0
PUBLISHES: Final = 10
SLOW_S: Final = 0.3
SHORT_S: Final = 0.1  # kubelet's patience in these tests
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a short path."""
    return tmp_path_factory.mktemp("akvfs")


@pytest.fixture
def node(directory: Path) -> Iterator[Node]:
    """Run a node that refreshes its volumes all the time."""
    with running_node(directory, server_flags=FLAGS) as running:
        yield running


@pytest.fixture
def answers(node: Node) -> Numbered:
    """Let the provider's answers be numbered."""
    node.provider.answer = answers = Numbered()
    return answers


@contextmanager
def read(node: Node) -> Iterator[tuple[PodVolume, Load]]:
    """Publish a volume and read it all along; it is gone at the end."""
    volume = node.volume()
    node.publish(volume)
    with (
        bind_file(volume.target / "pass", node.kubelet.path / "bound") as bound,
        load(node.class_dir.parent / "load", four_readers(volume.target, bound)) as running,
    ):
        yield volume, running
    node.unpublish(volume)
    volume.remove()


def test_killed_node_servers_are_not_noticed(node: Node, answers: Numbered, enter: Enter) -> None:
    """A node server that is killed and started again costs no read, and refreshes go on."""
    kills = []
    with read(node) as (volume, running):
        for _ in range(KILLS):
            rotates(volume, running)
            kills.append(time.monotonic())
            node.server.kill()
            node.server.restart()
            node.server.wait_until(lambda: is_ready(node.identity), "it is ready")
            node.publish(volume)  # as kubelet does each minute: a new one has no credentials
        rotates(volume, running)
        reports = running.stop()
    outcome = outcome_of(
        "node server killed",
        KILLS,
        reports,
        stalls=stalls(reports, kills, before_s=0.0, after_s=AROUND_S),
        leaks=left(node),
    )
    enter(outcome)
    assert answers.number > KILLS
    assert (outcome.failed, outcome.torn, outcome.leaks) == ({}, 0, [])
    assert outcome.stall_p99 < STALL_S


def test_upgraded_node_servers_are_not_noticed(
    node: Node, answers: Numbered, directory: Path, enter: Enter
) -> None:
    """A second node server takes everything from the first, which then ends: no read fails."""
    moments = []
    server = node.server
    with ExitStack() as servers, read(node) as (volume, running):
        for number in range(UPGRADES):
            rotates(volume, running)
            before, server = server, server.twin(log=directory / f"csi-{number}.log")
            servers.enter_context(server)
            server.wait_until(
                lambda before=before: "superseded" in before.log,  # type: ignore[misc]
                "it has taken over",
            )
            moments.append(time.monotonic())
            assert before.stop() == 0, before.log
            node.publish(volume)
        rotates(volume, running)
        reports = running.stop()
    outcome = outcome_of(
        "node server upgraded",
        UPGRADES,
        reports,
        stalls=stalls(reports, moments, before_s=AROUND_S, after_s=AROUND_S),
        leaks=left(node),
    )
    enter(outcome)
    assert answers.number > UPGRADES
    assert (outcome.failed, outcome.torn, outcome.leaks) == ({}, 0, [])
    assert outcome.stall_p99 < STALL_S


def unavailable(context: grpc.ServicerContext) -> None:
    """Fail like a vault that cannot be reached."""
    context.abort(grpc.StatusCode.UNAVAILABLE, "no vault")


def never(context: grpc.ServicerContext) -> None:
    """Take as long as the caller waits."""
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(TROUBLE_S)


def slow(_: grpc.ServicerContext) -> None:
    """Take some time."""
    threading.Event().wait(SLOW_S)


@pytest.mark.parametrize("problem", [unavailable, never])
def test_provider_in_trouble_fails_no_read(
    node: Node, answers: Numbered, enter: Enter, problem: Callable[[grpc.ServicerContext], None]
) -> None:
    """While there is no new content, or none in time, the last good one is read as ever."""
    moments = []
    with read(node) as (volume, running):
        for _ in range(TROUBLES):
            rotates(volume, running)
            moments.append(time.monotonic())
            answers.problem = problem
            refused = node.volume()
            with pytest.raises(grpc.RpcError):
                node.calls.NodePublishVolume(publish_request(refused), timeout=SHORT_S)
            threading.Event().wait(TROUBLE_S)
            answers.problem = lambda _: None
            node.unpublish(refused)
            refused.remove()
            rotates(volume, running)
        reports = running.stop()
    outcome = outcome_of(
        f"provider {problem.__name__}",
        TROUBLES,
        reports,
        stalls=stalls(reports, moments, before_s=0.0, after_s=TROUBLE_S),
        leaks=left(node),
    )
    enter(outcome)
    assert (outcome.failed, outcome.torn, outcome.leaks) == ({}, 0, [])
    assert outcome.stall_p99 < STALL_S


def test_interrupted_publishes_leave_one_mount(node: Node, answers: Numbered, enter: Enter) -> None:
    """A publish that its caller gives up, or that outlives its node server, can be repeated."""
    answers.problem = slow
    with ThreadPoolExecutor(1) as pool:
        for number in range(PUBLISHES):
            volume = node.volume()
            if number % 2:
                waiting = pool.submit(node.publish, volume)
                threading.Event().wait(SHORT_S)
                if number % 4 == 1:
                    node.server.kill()
                else:
                    node.server.stop()
                assert waiting.exception() is None or isinstance(waiting.exception(), grpc.RpcError)
                node.server.restart()
                node.server.wait_until(lambda: is_ready(node.identity), "it is ready")
            else:
                with pytest.raises(grpc.RpcError):
                    node.calls.NodePublishVolume(publish_request(volume), timeout=SHORT_S)
            node.publish(volume)
            assert len(node.kubelet.mounts()) == 1
            assert shown(volume) > 0
            node.unpublish(volume)
            volume.remove()
    outcome = Outcome(scenario="publish interrupted", runs=PUBLISHES, leaks=left(node))
    enter(outcome)
    assert not outcome.leaks

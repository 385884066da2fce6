"""A keeper hands over to another one: both sides in one loop, over a real socket, with a lease."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import attrs
import pytest

from fusefs import effects, handover, inheritance, protocol
from fusefs.errors import KeeperError, VolumeFailed
from fusefs.handover import Estate, Handover
from fusefs.inheritance import Heir, Inheritance
from fusefs.lease import Lease
from fusefs.listener import Listener
from fusefs.loop import Loop
from fusefs.sessions import Session, Sessions
from fusefs.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fusefs.backup import Backup


@attrs.define(eq=False)
class Served:
    """A volume of the keeper that serves."""

    volume_id: str
    events: list[str]
    page: int = attrs.field(factory=Usage.create)
    answered: bool = True
    stops: bool = True
    stopped: Callable[[bool], None] = lambda _: None

    def holdings(self) -> list[tuple[protocol.KeeperNotice, tuple[int, ...]]]:
        """Return the volume with one generation."""
        volume = protocol.VolumeBackup(
            self.volume_id, "/t", 0, b"", 1, (protocol.Generation(1, None),), b"", b""
        )
        return [
            (protocol.Hold(volume), (0, self.page)),
            (protocol.HoldGeneration(self.volume_id, 1), (0,)),
        ]

    def stop_serving(self, stopped: Callable[[bool], None]) -> None:
        """End the worker at once, or never."""
        self.events.append(f"stop {self.volume_id}")
        self.stopped = stopped
        if self.stops:
            stopped(self.answered)

    def serve_again(self) -> None:
        """Have a worker again."""
        self.events.append(f"serve {self.volume_id} again")


@attrs.define(eq=False)
class Taken:
    """A volume of the successor."""

    volume_id: str
    events: list[str]

    def serve(self, *, recover: bool) -> None:
        """Let the worker serve."""
        self.events.append(f"serve {self.volume_id}, recover {recover}")


class Node:
    """Two keepers of a node.

    Attributes:
        events: What both did, in order.
        resting: Whether nothing is under way in the keeper that serves.
        stands_by: What becomes of each worker of the successor; None: nothing for ever.
        refusing: What taking a volume over fails with.
    """

    def __init__(self, directory: Path) -> None:
        self.loop = Loop()
        self.events: list[str] = []
        self.resting = True
        self.stands_by: bool | None = True
        self.refusing: KeeperError | None = None
        self.directory = str(directory / "control")
        self.path = f"{self.directory}/keeper.sock"
        self.lease, self.other_lease = Lease(self.directory), Lease(self.directory)
        assert self.lease.take()
        self.hosts = [Served("v", self.events), Served("w", self.events)]
        self.stranger = subprocess.Popen(["sleep", "60"])  # stands for the successor
        self.sessions = Sessions(self.loop, self._heard, self._gone)
        self.listener = Listener(self.path, self.sessions.add)
        self.handover = Handover(
            self.loop,
            Estate(
                volumes=lambda: self.hosts,
                at_rest=lambda: self.resting,
                begin=lambda: self.events.append("deaf"),
                close=self.sessions.close_all_but,
                process=lambda _: self.stranger.pid,
                send=self.sessions.send,
                resume=lambda: self.events.append("resumed"),
                leave=self._leave,
            ),
            rank=5,
        )

    def _heard(
        self, session: Session, message: protocol.NodeMessage, descriptors: list[int]
    ) -> None:
        assert not descriptors
        assert isinstance(message, protocol.SuccessorMessage)
        ticket = effects.Ticket(session.number, message.request)
        try:
            self.handover.hear(ticket, message)
        except KeeperError as error:
            refused = protocol.Refused(message.request, type(error).__name__, str(error))
            self.sessions.send(session.number, refused, ())

    def _gone(self, session: Session) -> None:
        self.handover.gone(session.number)

    def _leave(self) -> None:
        self.events.append("left")
        self.lease.release()

    def listen(self) -> None:
        """Let the first keeper accept connections."""
        self.listener.start(self.loop)

    def successor(self, rank: int = 6) -> Inheritance:
        """Start the second keeper."""
        heir = Heir(
            adopt=self._adopt,
            serve=lambda: self.events.append("serves"),
            fail=lambda: self.events.append("failed"),
        )
        made = Inheritance(self.loop, self.other_lease, self.path, rank, heir)
        made.begin()
        return made

    def _adopt(self, backup: Backup, standing_by: Callable[[bool], None]) -> Taken:
        if self.refusing is not None:
            raise self.refusing
        assert sorted(backup.generations) == [1]
        assert os.path.samestat(os.fstat(backup.usage), os.fstat(self.page_of(backup.volume_id)))
        self.events.append(f"adopt {backup.volume_id}")
        could_serve = self.stands_by
        if could_serve is not None:
            self.loop.call_later(0, lambda: standing_by(could_serve))
        return Taken(backup.volume_id, self.events)

    def page_of(self, volume_id: str) -> int:
        """Return the page of counts of a volume."""
        return next(host.page for host in self.hosts if host.volume_id == volume_id)

    def until(self, *events: str) -> None:
        """Let both work until these are the last things that happened."""
        deadline = self.loop.call_later(10, lambda: pytest.fail(f"not {events}: {self.events}"))
        while tuple(self.events[-len(events) :]) != events:
            self.loop.call_later(0.002, self.loop.stop)
            self.loop.run()
        deadline.cancel()

    def hang_up(self) -> None:
        """End every connection to the first keeper, as its death does."""
        self.handover.successor = None
        self.sessions.close_all_but(0)

    def close(self) -> None:
        """End everything."""
        self.stranger.kill()
        self.stranger.wait()
        self.hang_up()
        self.loop.call_later(0.01, self.loop.stop)
        self.loop.run()
        self.handover.close()
        self.listener.close()
        self.lease.close()
        self.other_lease.close()
        for host in self.hosts:
            os.close(host.page)
        self.loop.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Return a node with a keeper that serves two volumes and listens."""
    made = Node(tmp_path)
    made.listen()
    yield made
    made.close()


TRANSFER = ["deaf", "adopt v", "adopt w", "stop v", "stop w"]


def test_everything_is_handed_over_in_order(node: Node) -> None:
    """Workers are stopped once the others stand by; the lease goes last."""
    node.hosts[1].answered = False
    node.successor()
    node.until("left", "serves")
    assert node.events == [
        *TRANSFER,
        "serve v, recover False",
        "serve w, recover True",
        "left",
        "serves",
    ]
    assert node.other_lease.held


def test_node_without_volumes_is_handed_over(node: Node) -> None:
    """There is nothing to send, and still one keeper at a time."""
    for host in node.hosts:
        os.close(host.page)
    node.hosts.clear()
    node.successor()
    node.until("deaf", "left", "serves")


def test_requests_under_way_end_first(node: Node) -> None:
    """A node server gets its answers from the keeper that it asked."""
    node.resting = False
    node.successor()
    node.until("deaf")
    node.loop.call_later(0.05, lambda: setattr(node, "resting", True))
    node.until("left", "serves")


def test_request_without_end_is_not_waited_for(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes too long is done again by the successor."""
    monkeypatch.setattr(handover, "DRAIN_S", 0.05)
    node.resting = False
    node.successor()
    node.until("left", "serves")


def test_older_keeper_waits_for_the_lease(node: Node, announced: list[str]) -> None:
    """A keeper that its supervisor started again does not undo an upgrade."""
    announced.append("waiting for the lease: the keeper that serves was started later")
    node.successor(rank=4)
    node.loop.call_later(0.1, node.lease.release)
    node.until("serves")
    assert node.events == ["serves"]


def test_other_major_version_is_refused(node: Node) -> None:
    """It would not understand what it is sent."""
    with pytest.raises(KeeperError, match="version 1 of the control messages"):
        node.handover.hear(effects.Ticket(1, 1), protocol.TakeOver(1, 9, major=2))


def test_one_successor_at_a_time(node: Node, announced: list[str]) -> None:
    """A third keeper waits until it is known who serves."""
    announced.extend(("waiting for the lease: another keeper takes over", "failed|left|$"))
    node.resting = False
    node.successor()
    node.until("deaf")
    with pytest.raises(VolumeFailed, match="another keeper takes over"):
        node.handover.hear(effects.Ticket(99, 1), protocol.TakeOver(1, 9))
    with pytest.raises(KeeperError, match="take over first"):
        node.handover.hear(effects.Ticket(99, 1), protocol.Committed(1))
    announced.clear()
    node.resting = True
    node.until("left", "serves")


def test_successor_that_cannot_serve_gives_up(node: Node, announced: list[str]) -> None:
    """Its library would speak otherwise than the kernel was told: the old keeper serves on."""
    announced.extend(("would speak otherwise", "the take-over failed", "the successor has left"))
    node.stands_by = False
    node.successor()
    node.until("failed", "resumed")
    assert "serve v again" not in node.events  # its worker was never stopped
    assert node.stranger.wait(5) < 0


def test_volume_that_is_not_taken_stops_it_all(node: Node, announced: list[str]) -> None:
    """A successor takes everything or nothing."""
    announced.extend(("cannot take over: no", "the take-over failed", "the successor has left"))
    node.refusing = VolumeFailed("no")
    node.successor()
    node.until("failed", "resumed")
    assert node.lease.held


def test_late_successor_is_killed(
    node: Node, announced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was stopped would serve old content when it goes on."""
    announced.extend(("has not taken over", "the keeper before has left", "the take-over failed"))
    monkeypatch.setattr(handover, "COMMIT_S", 0.1)
    monkeypatch.setattr(inheritance, "ALONE_S", 0.1)
    for host in node.hosts:
        host.stops = host.volume_id == "v"
    node.successor()
    node.until("failed")
    assert node.stranger.wait(5) < 0
    assert node.events[-4:-1] == ["serve v again", "serve w again", "resumed"]


def test_successor_goes_on_alone(node: Node, announced: list[str]) -> None:
    """The keeper before is dead, which its lease shows; all that it had has come."""
    announced.append("the keeper before has left")
    for host in node.hosts:
        host.stops = False
    node.successor()
    node.until("stop v", "stop w")
    node.hang_up()
    node.lease.release()
    node.until("serve v, recover True", "serve w, recover True", "serves")


def test_half_an_estate_is_not_served(node: Node, announced: list[str]) -> None:
    """A predecessor that dies amid the transfer leaves the rest to the node server."""
    announced.append("cannot take over|$")
    announced.clear()
    sent: list[protocol.Message] = []
    send = node.sessions.send

    def send_half(number: int, message: protocol.Message, descriptors: tuple[int, ...]) -> None:
        if len(sent) < 3:
            send(number, message, descriptors)
        sent.append(message)

    object.__setattr__(node.handover._estate, "send", send_half)  # noqa: SLF001 - the way it dies
    node.successor()
    node.until("adopt v")
    node.hang_up()
    node.until("failed")


def test_keeper_that_does_not_listen_is_outlived(node: Node) -> None:
    """The one that holds the lease may be about to die: the other one looks again and again."""
    node.listener.close()
    node.successor()
    node.loop.call_later(0.1, node.lease.release)
    node.until("serves")


def test_first_keeper_serves_at_once(tmp_path: Path) -> None:
    """Nobody holds the lease, whatever a keeper before left in the directory."""
    node = Node(tmp_path)
    node.lease.release()
    node.successor()
    assert node.events == ["serves"]
    node.close()


def test_few_volumes_wait_at_a_time(node: Node) -> None:
    """A volume is without a worker for a moment, not until all others have been handed over."""
    for host in node.hosts:
        host.stops = False
    node.hosts.extend(Served(f"v{number}", node.events, stops=number > 1) for number in range(10))
    node.successor()
    node.until("stop v", "stop w", "stop v0", "stop v1")
    node.loop.call_later(0.05, node.loop.stop)
    node.loop.run()
    assert node.events[-1] == "stop v1"
    for host in node.hosts[:2]:
        host.stopped(host.answered)
    for _ in range(100):
        node.loop.call_later(0.001, node.loop.stop)
        node.loop.run()
    assert node.events.count("left") == 0
    for host in node.hosts[2:4]:
        host.stopped(host.answered)
    node.until("left", "serves")
    assert [event for event in node.events if event.startswith("stop")][-1] == "stop v9"


def test_successor_out_of_sight_is_refused(node: Node, announced: list[str]) -> None:
    """It could not be killed if it failed; the remedy is named."""
    announced.append("waiting for the lease: .* run keepers with hostPID")
    node.stranger.kill()
    node.stranger.wait()
    node.successor()
    node.loop.call_later(0.1, node.lease.release)
    node.until("serves")
    assert "deaf" not in node.events

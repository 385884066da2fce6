"""Which requests the keeper carries out, for whom, and that it answers each: without mounts."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

from fusefs import packets, protocol, sessions
from fusefs.config import Config
from fusefs.keeper import Keeper
from fusefs.loop import Loop
from fusefs.memory import sealed_memfd
from fusefs.target import KubeletRoot
from fusefs.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DRIVER = "secrets-store.csi.k8s.io"
BELOW = "pods/uid-1/volumes/kubernetes.io~csi/secrets"


class Node:
    """A keeper, and node servers that speak to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mount = path / BELOW / "mount"
        self.mount.parent.mkdir(parents=True)
        self.loop = Loop()
        self.root = KubeletRoot(str(path))
        config = Config(socket=str(path / "control/keeper.sock"), kubelet_root=str(path))
        self.keeper = Keeper(config, self.root, self.loop)
        self.servers: list[Server] = []
        self.prepare("v")

    def prepare(self, volume_id: str) -> None:
        """Write what kubelet writes for a volume."""
        data = {"driverName": DRIVER, "volumeHandle": volume_id}
        (self.mount.parent / "vol_data.json").write_text(json.dumps(data), encoding="utf-8")

    def connect(self) -> Server:
        """Start a session."""
        self.servers.append(Server(self, len(self.servers) + 1))
        return self.servers[-1]

    def run_until_readable(self, connection: socket.socket) -> None:
        """Let the keeper work until it has said something."""
        self.loop.watch(connection.fileno(), self.loop.stop)
        deadline = self.loop.call_later(10, self.loop.stop)
        self.loop.run()
        deadline.cancel()
        self.loop.unwatch(connection.fileno())

    def close(self) -> None:
        """End all sessions and the keeper."""
        for server in self.servers:
            server.connection.close()
        self.loop.call_later(0, self.loop.stop)
        self.loop.run()
        self.root.close()
        self.loop.close()


class Server:
    """A node server's session."""

    def __init__(self, node: Node, number: int) -> None:
        self.node = node
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.settimeout(5)
        theirs.settimeout(0)
        node.keeper.sessions.add(number, theirs)

    def ask(
        self, message: protocol.NodeMessage, descriptors: Sequence[int] = ()
    ) -> protocol.KeeperMessage | None:
        """Send a request with its descriptors, and return the answer; None: it was hung up."""
        packets.send(self.connection, message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        return self.hear()

    def hear(self) -> protocol.KeeperMessage | None:
        """Return what the keeper says next; None: it was hung up."""
        self.node.run_until_readable(self.connection)
        received = packets.receive(self.connection, protocol.AT_NODE)
        if received is None:
            return None
        answer: protocol.KeeperMessage
        answer, came_with = received
        assert came_with == []
        return answer

    def register(self) -> protocol.KeeperMessage | None:
        """Become the session that is obeyed."""
        return self.ask(protocol.Register(1))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Return a keeper without volumes, and a prepared target."""
    made = Node(tmp_path)
    yield made
    made.close()


@pytest.fixture
def server(node: Node) -> Server:
    """Return the session that is obeyed."""
    made = node.connect()
    assert made.register() == protocol.Done(1)
    return made


def refused(answer: protocol.KeeperMessage | None, request: int = 9) -> protocol.Refused:
    """Check that a request was refused, and return how."""
    assert isinstance(answer, protocol.Refused)
    assert answer.request == request
    return answer


def snapshot() -> int:
    """Return a descriptor of a sealed file, which the keeper does not read."""
    return sealed_memfd("test", [b"secret"])


def publish(node: Node, *, volume_id: str = "v", generation: int = 1) -> protocol.Publish:
    """Return a request to publish at the prepared target."""
    return protocol.Publish(9, volume_id, str(node.mount), generation, b"", b"record")


# Whom the keeper obeys


COMMANDS = [
    protocol.Rotate(9, "v", 2, b"", b""),
    protocol.UpdateRecord(9, "v", b""),
    protocol.Unpublish(9, "v", "/t"),
    protocol.Publish(9, "v", "/t", 1, b"", b""),
    protocol.GiveBack(
        9, protocol.VolumeBackup("v", "/t", 0, b"", 1, (protocol.Generation(1, None),), b"", b"")
    ),
    protocol.GiveBackGeneration(9, "v", 1),
]
QUESTIONS: list[protocol.NodeMessage] = [
    protocol.ListVolumes(9),
    protocol.FetchSnapshot(9, "v"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_commands_need_a_registered_session(node: Node, command: protocol.NodeMessage) -> None:
    """Whoever has not registered is told to."""
    answer = refused(node.connect().ask(command))
    assert (answer.error, answer.text) == ("Superseded", "register first")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_older_session_is_superseded(
    node: Node, server: Server, command: protocol.NodeMessage
) -> None:
    """Once a newer node server has registered, the older one is obeyed no longer."""
    assert node.connect().register() == protocol.Done(1)
    assert server.hear() == protocol.Dismissed()
    answer = refused(server.ask(command))
    assert (answer.error, answer.text) == ("Superseded", "a newer node server has registered")


def test_dismissal_comes_after_all_that_is_to_be_held(
    node: Node, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the keeper killed in between, no node server would hold everything."""
    assert server.register() == protocol.Done(1)
    sent: list[tuple[int, type[protocol.Message]]] = []
    send = node.keeper.sessions.send

    def note(number: int, message: protocol.Message, descriptors: tuple[int, ...]) -> None:
        sent.append((number, type(message)))
        send(number, message, descriptors)

    monkeypatch.setattr(node.keeper.sessions, "send", note)
    assert node.connect().register() == protocol.Done(1)
    assert server.hear() == protocol.Dismissed()
    assert sent == [(2, protocol.Done), (1, protocol.Dismissed)]


def test_older_session_cannot_register_again(node: Node, server: Server) -> None:
    """The order of arrival decides, not who asks last."""
    newer = node.connect()
    newer.register()
    assert server.hear() == protocol.Dismissed()
    assert refused(server.register(), 1).error == "Superseded"
    assert refused(newer.ask(protocol.UpdateRecord(9, "v", b""))).error == "VolumeUnknown"


def test_newer_session_takes_over_by_registering(node: Node, server: Server) -> None:
    """An onlooker that connects later disturbs nobody."""
    node.connect().ask(protocol.ListVolumes(1))
    assert refused(server.ask(protocol.UpdateRecord(9, "v", b""))).error == "VolumeUnknown"


def test_questions_need_no_registration(node: Node) -> None:
    """A node server may look before it takes over."""
    onlooker = node.connect()
    assert onlooker.ask(protocol.ListVolumes(9)) == protocol.Volumes(9, ())
    assert refused(onlooker.ask(protocol.FetchSnapshot(9, "v"))).error == "VolumeUnknown"


# Requests about unknown volumes


@pytest.mark.parametrize("command", [COMMANDS[0], COMMANDS[1], QUESTIONS[1]], ids=str)
def test_unknown_volume_is_named(server: Server, command: protocol.NodeMessage) -> None:
    """The node server learns that it must publish the volume anew."""
    answer = refused(server.ask(command))
    assert (answer.error, answer.text) == ("VolumeUnknown", "volume 'v' is not published")


@pytest.mark.parametrize("state", ["absent", "empty", "parent-absent"])
def test_unpublishing_the_unknown_is_done(node: Node, server: Server, state: str) -> None:
    """Unpublish converges: what is not there need not be known."""
    if state == "empty":
        node.mount.mkdir()
    if state == "parent-absent":
        node.mount.parent.rename(node.mount.parent.with_name("gone"))
    assert server.ask(protocol.Unpublish(9, "v", str(node.mount))) == protocol.Done(9)
    assert not node.mount.exists()


def test_unpublishing_anywhere_else_is_refused(node: Node, server: Server) -> None:
    """A path outside kubelet's layout is the caller's mistake."""
    answer = refused(server.ask(protocol.Unpublish(9, "v", str(node.path / "other"))))
    assert (answer.error, answer.layout) == ("TargetRefused", True)


# Publishing


def test_target_outside_the_layout_is_refused(node: Node, server: Server) -> None:
    """The answer says that the argument is wrong."""
    request = protocol.Publish(9, "v", str(node.path / "other"), 1, b"", b"")
    answer = refused(server.ask(request, [snapshot()]))
    assert (answer.error, answer.layout) == ("TargetRefused", True)


def test_target_of_another_volume_is_refused(node: Node, server: Server) -> None:
    """The answer says that the node is in the wrong state, and nothing is made there."""
    answer = refused(server.ask(publish(node, volume_id="w"), [snapshot()]))
    assert (answer.error, answer.layout) == ("TargetRefused", False)
    assert not node.mount.exists()


def unsealed() -> int:
    """Return a memory file that anybody could change."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(fd, b"x")
    return fd


@pytest.mark.parametrize(
    ("count", "generation"),
    [(0, 1), (2, 1), (1, 0), (1, -1)],
    ids=["no-snapshot", "two-snapshots", "generation-zero", "generation-negative"],
)
def test_incomplete_requests_are_invalid(
    node: Node, server: Server, count: int, generation: int
) -> None:
    """One snapshot and a generation must come with a publish; the descriptors are closed."""
    request = publish(node, generation=generation)
    answer = refused(server.ask(request, [snapshot() for _ in range(count)]))
    assert (answer.error, node.mount.exists()) == ("InvalidMessage", False)


def test_snapshot_must_be_sealed(node: Node, server: Server) -> None:
    """A memory file that its sender could still change is no snapshot."""
    answer = refused(server.ask(publish(node), [unsealed()]))
    assert answer.error == "InvalidMessage"
    assert "not sealed" in answer.text


def test_file_at_the_target_is_refused_and_stays(
    node: Node, server: Server, announced: list[str]
) -> None:
    """A publish that cannot begin is answered, and what stood in its way is still there."""
    announced.extend(("ClearTarget failed", "TearDown failed|$"))
    node.mount.touch()
    answer = refused(server.ask(publish(node), [snapshot()]))
    assert (answer.error, answer.layout) == ("TargetRefused", False)
    assert "not a directory; remove the file" in answer.text
    assert node.mount.is_file()
    assert server.ask(protocol.ListVolumes(9)) == protocol.Volumes(9, ())


def test_failed_mount_leaves_nothing(node: Node, server: Server, announced: list[str]) -> None:
    """Where the private mount cannot be made the request is answered and the target is gone."""
    announced.extend(("StartWorker failed", "the volume is a tmpfs: FUSE cannot be had"))
    for _ in range(2):  # again: nothing of the first attempt is in the way
        answer = refused(server.ask(publish(node), [snapshot()]))
        assert answer.error == "VolumeFailed"
        assert not node.mount.exists()
        assert server.ask(protocol.ListVolumes(9)) == protocol.Volumes(9, ())


# Giving back


def give_back(
    node: Node, server: Server, *, page: int | None = None, content: int | None = None
) -> protocol.Refused:
    """Give back a volume whose device is none, and return how it is refused."""
    volume = protocol.VolumeBackup(
        "v", str(node.mount), 5, b"record", 1, (protocol.Generation(1, None),), b"", b""
    )
    device = os.open(os.devnull, os.O_RDWR)
    descriptors = [device, Usage.create() if page is None else page]
    assert server.ask(protocol.GiveBack(8, volume), descriptors) == protocol.Done(8)
    descriptors = [snapshot() if content is None else content]
    return refused(server.ask(protocol.GiveBackGeneration(9, "v", 1), descriptors))


def test_device_that_is_none_is_refused(node: Node, server: Server) -> None:
    """Nothing is mounted by a descriptor that is no FUSE device, and the target is untouched."""
    answer = give_back(node, server)
    assert (answer.error, answer.text) == ("VolumeFailed", "what is given back is no FUSE device")
    assert not node.mount.exists()
    assert server.ask(protocol.ListVolumes(9)) == protocol.Volumes(9, ())


def test_page_that_could_shrink_is_refused(node: Node, server: Server) -> None:
    """A worker would die of it, and its successors too."""
    answer = give_back(node, server, page=unsealed())
    assert (answer.error, "page of counts" in answer.text) == ("InvalidMessage", True)


def test_content_that_could_change_is_refused(node: Node, server: Server) -> None:
    """What is given back is checked as what is published."""
    answer = give_back(node, server, content=unsealed())
    assert (answer.error, "sealed" in answer.text) == ("InvalidMessage", True)


def test_target_of_nobody_is_refused(node: Node, server: Server) -> None:
    """The pod is gone, and the volume goes with it."""
    (node.mount.parent / "vol_data.json").unlink()
    assert give_back(node, server).error == "TargetRefused"


def test_other_major_version_is_refused(node: Node) -> None:
    """It would not understand what it is sent; the remedy is named."""
    answer = refused(node.connect().ask(protocol.Register(9, major=2)))
    assert (answer.error, "from one release" in answer.text) == ("InvalidMessage", True)


# Sessions


def test_garbage_ends_a_session_and_no_other(
    node: Node, server: Server, announced: list[str]
) -> None:
    """A peer that does not follow the protocol is hung up on."""
    announced.append("a session is closed: the packet is no message of this protocol")
    other = node.connect()
    fd = sealed_memfd("test", [b"x"])
    socket.send_fds(other.connection, [b"i\xc1"], [fd])
    os.close(fd)
    node.run_until_readable(other.connection)
    assert packets.receive(other.connection, protocol.AT_NODE) is None
    assert server.ask(protocol.ListVolumes(9)) == protocol.Volumes(9, ())


def test_session_that_left_is_not_answered(
    node: Node, server: Server, announced: list[str]
) -> None:
    """A caller that does not wait for its answer disturbs nobody."""
    announced.append("a session does not listen and is closed")
    leaving = node.connect()
    packets.send(leaving.connection, protocol.ListVolumes(1))
    leaving.connection.close()
    assert server.ask(protocol.ListVolumes(9)) == protocol.Volumes(9, ())


def test_answer_to_a_closed_session_is_dropped(node: Node) -> None:
    """A volume may be ready long after its node server has left."""
    node.keeper.sessions.send(99, protocol.Done(1), ())


def test_session_that_does_not_listen_is_closed(
    node: Node, server: Server, announced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more is read from it while its answers wait: the keeper waits for nobody."""
    announced.append("a session takes nothing for 0 s and is closed")
    deaf = node.connect()

    monkeypatch.setattr(sessions, "DEAF_S", 0.05)
    deaf.connection.settimeout(0)

    def ask_and_never_read() -> None:
        for number in range(2000):
            with contextlib.suppress(BlockingIOError):
                packets.send(deaf.connection, protocol.FetchSnapshot(number, "v" * 30_000))
            node.loop.call_later(0.001, node.loop.stop)
            node.loop.run()

    with pytest.raises(ConnectionError):
        ask_and_never_read()
    assert server.ask(protocol.ListVolumes(9)) == protocol.Volumes(9, ())

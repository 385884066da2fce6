"""The node server's session with a keeper, over a real socket with a keeper that is only that."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

import fusefs.client
from fakes.keepersocket import Answer, KeeperSocket
from fakes.trees import sealed
from fusefs import errors, packets, protocol
from fusefs.backup import Backups
from fusefs.client import KeeperClient, connect
from fusefs.memory import sealed_memfd
from fusefs.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fusefs.snapshot import Snapshot

KEEPER_ERRORS = errors.KeeperError.__subclasses__()


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[KeeperSocket]:
    """Return a keeper that listens and answers every request with Done."""
    async with KeeperSocket.listening(tmp_path) as made:
        yield made


@pytest.fixture
async def client(keeper: KeeperSocket) -> AsyncIterator[KeeperClient]:
    """Return a registered session."""
    async with connect(keeper.path) as made:
        yield made


async def test_nobody_at_the_socket_is_unavailable(tmp_path: Path) -> None:
    """The error names the socket and the reason, and a left-over socket file is no keeper."""
    path = str(tmp_path / "keeper.sock")
    with pytest.raises(errors.KeeperUnavailable, match=r"keeper\.sock.*No such file"):
        async with connect(path):
            pass
    left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.bind(path)
    left.close()
    with pytest.raises(errors.KeeperUnavailable, match="refused"):
        async with connect(path):
            pass


async def test_keeper_that_hangs_is_unavailable(tmp_path: Path) -> None:
    """A keeper that accepts nobody does not stop the node server's loop."""
    path = str(tmp_path / "keeper.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting:
            waiting.connect(path)
            with pytest.raises(errors.KeeperUnavailable, match="unavailable"):
                async with connect(path):
                    pass


async def test_session_begins_with_registration(keeper: KeeperSocket) -> None:
    """The newest session is the one obeyed; whoever only looks does not register."""
    async with connect(keeper.path) as client:
        assert keeper.heard == [protocol.Register(1)]
        assert client.keeper_pid == os.getpid()


async def test_onlooker_does_not_register(keeper: KeeperSocket) -> None:
    """A session that only lists volumes leaves the node server's alone."""
    keeper.respond = lambda message: protocol.Volumes(message.request, ())
    async with connect(keeper.path, register=False) as client:
        assert await client.volumes() == []
    assert keeper.heard == [protocol.ListVolumes(1)]


async def test_requests_carry_what_they_are_about(
    keeper: KeeperSocket, client: KeeperClient
) -> None:
    """Each call is one message; snapshots travel as their descriptor, which stays the caller's."""
    with sealed({"a": b"one"}) as first, sealed({"a": b"two"}, first.snapshot) as second:
        await client.publish("v", "/t", first, record=b"r1")
        await client.rotate("v", second, record=b"r2")
        await client.update_record("v", b"r3")
        await client.unpublish("v", "/t")
        assert first.snapshot.content("a") == b"one"
        assert keeper.heard[1:] == [
            protocol.Publish(2, "v", "/t", 1, first.plan, b"r1", digest=first.snapshot.digest),
            protocol.Rotate(3, "v", 2, second.plan, b"r2", second.snapshot.digest),
            protocol.UpdateRecord(4, "v", b"r3"),
            protocol.Unpublish(5, "v", "/t"),
        ]
    assert [content[-3:] for content in keeper.contents] == [b"one", b"two"]


@pytest.mark.parametrize("kind", KEEPER_ERRORS)
async def test_each_refusal_is_raised_as_itself(
    keeper: KeeperSocket, client: KeeperClient, kind: type[errors.KeeperError]
) -> None:
    """Whatever the keeper answers, the caller catches the class that the keeper raised."""
    keeper.respond = lambda message: protocol.Refused(message.request, kind.__name__, "because")
    with pytest.raises(kind, match="because") as caught:
        await client.update_record("v", b"")
    assert type(caught.value) is kind


@pytest.mark.parametrize("layout", [True, False])
async def test_refused_target_keeps_whose_fault_it_is(
    keeper: KeeperSocket, client: KeeperClient, *, layout: bool
) -> None:
    """The node server answers InvalidArgument to one and FailedPrecondition to the other."""
    keeper.respond = lambda message: protocol.Refused(message.request, "TargetRefused", "x", layout)
    with pytest.raises(errors.TargetRefused) as caught:
        await client.unpublish("v", "/t")
    assert caught.value.layout is layout


async def test_unknown_refusal_is_a_failed_volume(
    keeper: KeeperSocket, client: KeeperClient
) -> None:
    """A keeper of a later version may know errors that this client does not."""
    keeper.respond = lambda message: protocol.Refused(message.request, "NoSuchError", "new")
    with pytest.raises(errors.VolumeFailed, match="new"):
        await client.update_record("v", b"")


async def test_answers_find_their_callers(keeper: KeeperSocket, client: KeeperClient) -> None:
    """Requests under way at once may be answered in any order."""
    keeper.respond = lambda _: None
    done: list[str] = []

    async def ask(name: str) -> None:
        await client.update_record(name, b"")
        done.append(name)

    async with trio.open_nursery() as nursery:
        for name in ("a", "b"):
            nursery.start_soon(ask, name)
        await trio.testing.wait_all_tasks_blocked()
        requests = {one.volume_id: one.request for one in updates(keeper)}
        for name in ("b", "a"):
            keeper.send(protocol.Done(requests[name]))
            await trio.testing.wait_all_tasks_blocked()
    assert done == ["b", "a"]


def updates(keeper: KeeperSocket) -> list[protocol.UpdateRecord]:
    """Return the requests to update a record."""
    return [one for one in keeper.heard if isinstance(one, protocol.UpdateRecord)]


async def test_lost_connection_ends_all_requests(
    keeper: KeeperSocket, client: KeeperClient
) -> None:
    """Who waits, and who asks later, hears that the keeper is gone; nobody waits for ever."""
    keeper.respond = lambda _: None
    lost: list[str] = []

    async def ask(name: str) -> None:
        with pytest.raises(errors.KeeperUnavailable, match="connection to the keeper was lost"):
            await client.update_record(name, b"")
        lost.append(name)

    async with trio.open_nursery() as nursery:
        for name in ("a", "b"):
            nursery.start_soon(ask, name)
        await trio.testing.wait_all_tasks_blocked()
        keeper.hang_up()
        await client.wait_lost()
    await ask("late")
    assert sorted(lost) == ["a", "b", "late"]


async def test_last_answer_of_a_dying_keeper_counts(
    keeper: KeeperSocket, client: KeeperClient
) -> None:
    """What was answered before the connection was lost is answered."""

    def answer_and_die(message: protocol.NodeMessage) -> None:
        keeper.send(protocol.Done(message.request))
        keeper.hang_up()

    keeper.respond = answer_and_die
    await client.update_record("v", b"")
    await client.wait_lost()


async def test_garbage_from_the_keeper_ends_the_session(
    keeper: KeeperSocket, client: KeeperClient, announced: list[str]
) -> None:
    """A keeper that does not follow the protocol is as good as none."""
    announced.append("the connection to the keeper is given up")
    keeper.respond = lambda _: b"i\xc1"
    with pytest.raises(errors.KeeperUnavailable):
        await client.update_record("v", b"")


async def test_answer_that_nobody_waits_for_is_closed(
    keeper: KeeperSocket, client: KeeperClient
) -> None:
    """A caller that gave up leaves no descriptor behind (conftest), and the session goes on."""
    keeper.respond = lambda message: (
        protocol.Volumes(message.request, (STATE,))
        if isinstance(message, protocol.ListVolumes)
        else None
    )
    with trio.move_on_after(0) as scope:
        await client.update_record("v", b"")
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.volumes)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for request in (2, keeper.heard[-1].request):
        fd = sealed_memfd("test", [b"late"])
        keeper.send((protocol.SnapshotOf(request, 1), [fd]))
    keeper.respond = lambda message: protocol.Done(message.request)
    await client.update_record("v", b"")


STATE = protocol.VolumeState("v", "/t", 1, b"record", 7)


def _snapshot_of(request: int, snapshot: Snapshot) -> tuple[protocol.SnapshotOf, list[int]]:
    """Return a keeper's answer that brings a snapshot."""
    answer = protocol.SnapshotOf(request, snapshot.generation, snapshot.digest)
    return answer, [os.dup(snapshot.fd)]


async def test_volumes_come_with_their_snapshots(
    keeper: KeeperSocket, client: KeeperClient
) -> None:
    """Everything that a new node server resumes from; the snapshot's generation is what counts."""
    with sealed({"a": b"one"}) as first, sealed({"a": b"two"}, first.snapshot) as second:
        keeper.respond = lambda message: (
            protocol.Volumes(message.request, (STATE,))
            if isinstance(message, protocol.ListVolumes)
            else _snapshot_of(message.request, second.snapshot)
        )
        [volume] = await client.volumes()
        assert volume.snapshot is not None
        assert volume.snapshot.content("a") == b"two"
        volume.snapshot.close()
    assert (volume.volume_id, volume.target, volume.generation) == ("v", "/t", 2)
    assert (volume.record, volume.worker_pid) == (b"record", 7)


async def test_volumes_without_snapshots(keeper: KeeperSocket, client: KeeperClient) -> None:
    """Who only looks is sent no content."""
    keeper.respond = lambda message: protocol.Volumes(message.request, (STATE,))
    [volume] = await client.volumes(snapshots=False)
    assert (volume.snapshot, volume.generation) == (None, 1)
    assert isinstance(keeper.heard[-1], protocol.ListVolumes)


@pytest.mark.parametrize("case", ["gone", "broken", "missing"])
async def test_volume_without_a_usable_snapshot(
    keeper: KeeperSocket, client: KeeperClient, announced: list[str], case: str
) -> None:
    """A volume that is gone meanwhile, or whose snapshot cannot be read, is still listed."""

    def respond(message: protocol.NodeMessage) -> Answer:
        if isinstance(message, protocol.ListVolumes):
            return protocol.Volumes(message.request, (STATE,))
        if case == "gone":
            return protocol.Refused(message.request, "VolumeUnknown", "gone")
        answer = protocol.SnapshotOf(message.request, 1)
        return (answer, [sealed_memfd("test", [b"x"])]) if case == "broken" else answer

    if case != "gone":
        announced.append("the keeper sent a broken snapshot")
    keeper.respond = respond
    [volume] = await client.volumes()
    assert volume.snapshot is None


async def test_abandoned_listing_closes_its_snapshots(
    keeper: KeeperSocket, client: KeeperClient
) -> None:
    """A listing that is cut short leaves none of the snapshots behind that it had (conftest)."""
    with sealed({"a": b"one"}) as first:

        def respond(message: protocol.NodeMessage) -> Answer:
            if isinstance(message, protocol.ListVolumes):
                return protocol.Volumes(message.request, (STATE, STATE))
            if len(keeper.heard) > 3:
                keeper.hang_up()
                return None
            return _snapshot_of(message.request, first.snapshot)

        keeper.respond = respond
        with pytest.raises(errors.KeeperUnavailable):
            await client.volumes()


async def test_slow_keeper_is_waited_for(keeper: KeeperSocket, client: KeeperClient) -> None:
    """A full socket holds up the callers, one after another, and loses nothing."""
    release = trio.Event()

    async def respond(message: protocol.NodeMessage) -> Answer:
        await release.wait()
        return protocol.Done(message.request)

    keeper.respond = respond
    record = b"r" * (packets.INLINE_BYTES - 100)
    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(client.update_record, f"v{number}", record)
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert {one.volume_id for one in updates(keeper)} == {f"v{number}" for number in range(40)}


async def test_error_of_the_caller_passes_unwrapped(keeper: KeeperSocket) -> None:
    """What is raised inside the session is what its owner catches."""

    async def fail() -> None:
        async with connect(keeper.path):
            message = "mine"
            raise KeyError(message)

    with pytest.raises(KeyError, match="mine"):
        await fail()


# What is held for the keeper


@pytest.fixture
def backups() -> Iterator[Backups]:
    """Return a store that outlives sessions, with one volume of one generation."""
    made = Backups()
    notice = protocol.Hold(
        protocol.VolumeBackup(
            "v", "/t", 3, b"record", 1, (protocol.Generation(1, None),), b"init", b"reply"
        )
    )
    made.take(notice, [sealed_memfd("test", [b"device"]), Usage.create()])
    made.take(protocol.HoldGeneration("v", 1), [sealed_memfd("test", [b"one"])])
    yield made
    made.close()


async def test_keeper_is_told_to_hold_it_all_again(keeper: KeeperSocket, backups: Backups) -> None:
    """What a keeper lacks is given back before the session is used, piece by piece."""
    async with connect(keeper.path, backups=backups):
        [backup] = backups
        assert keeper.heard == [
            protocol.Register(1),
            protocol.GiveBack(2, backup.announcement()),
            protocol.GiveBackGeneration(3, "v", 1),
        ]
        assert keeper.contents[2] == b"one"
        assert backup.confirmed


async def test_volumes_let_go_meanwhile_are_not_given_back(
    keeper: KeeperSocket, backups: Backups
) -> None:
    """A number that was closed may name something else by now: no keeper may be sent that."""
    fds: list[int] = []

    def respond(message: protocol.NodeMessage) -> Answer:
        if isinstance(message, protocol.GiveBackGeneration):
            backups.close()
            fds.extend(sealed_memfd("test", [b"of another volume"]) for _ in range(4))
        return protocol.Done(message.request)

    keeper.respond = respond
    with sealed({"a": b"1"}) as first, sealed({"a": b"two"}, first.snapshot) as second:
        rotation = protocol.Rotate(9, "v", 2, second.plan, b"newer", second.snapshot.digest)
        assert backups.rotating(rotation, second.snapshot.fd)
        with pytest.raises(errors.KeeperUnavailable):
            async with connect(keeper.path, backups=backups):
                pass
    assert b"of another volume" not in keeper.contents
    for fd in fds:
        os.close(fd)


async def test_stale_rotation_leaves_what_is_held(keeper: KeeperSocket, backups: Backups) -> None:
    """A node server that could not read the newest snapshot sends its number once more."""
    [backup] = backups
    before = backup.generations[1].fd
    keeper.respond = lambda message: (
        protocol.Refused(message.request, "InvalidMessage", "generation 1 is not newer than 1")
        if isinstance(message, protocol.Rotate)
        else protocol.Done(message.request)
    )
    async with connect(keeper.path, backups=backups) as client:
        with sealed({"a": b"1"}) as first, pytest.raises(errors.InvalidMessage):
            await client.rotate("v", first, record=b"newer")
    assert (backup.generations[1].fd, backup.record) == (before, b"record")


async def test_last_words_of_a_dead_keeper_are_read(keeper: KeeperSocket, backups: Backups) -> None:
    """Also when a request fails first: a lost acknowledgement could bring old content back."""
    async with connect(keeper.path, backups=backups) as client:
        for number in range(1, 31):
            keeper.send(protocol.Acknowledged("v", number, finished=True))
        keeper.hang_up()
        with pytest.raises(errors.KeeperUnavailable):
            await client.update_record("v", b"")
    assert [backup.acknowledged for backup in backups] == [30]


async def test_volume_that_is_refused_is_let_go(
    keeper: KeeperSocket, backups: Backups, announced: list[str]
) -> None:
    """Nobody serves it: its mount ends, and it is published again."""
    announced.append("a volume is not served any longer: it is dead")

    def respond(message: protocol.NodeMessage) -> Answer:
        if isinstance(message, protocol.GiveBackGeneration):
            return protocol.Refused(message.request, "VolumeFailed", "it is dead")
        return protocol.Done(message.request)

    keeper.respond = respond
    async with connect(keeper.path, backups=backups):
        assert not backups


async def test_lost_rotation_is_sent_again(keeper: KeeperSocket, backups: Backups) -> None:
    """A keeper that lives and never got a generation gets it before the session is used."""
    [backup] = backups
    with sealed({"a": b"1"}) as first, sealed({"a": b"two"}, first.snapshot) as second:
        backups.rotating(
            protocol.Rotate(9, "v", 2, second.plan, b"newer", second.snapshot.digest),
            second.snapshot.fd,
        )
        volume = msgspec.structs.replace(
            backup.announcement(),
            record=b"record",
            generations=(protocol.Generation(1, None),),
        )
        device, page = os.dup(backup.device), os.dup(backup.usage)

        def respond(message: protocol.NodeMessage) -> Answer:
            if isinstance(message, protocol.Register):
                keeper.send((protocol.Hold(volume), [device, page]))
                one = sealed_memfd("test", [b"one"])
                keeper.send((protocol.HoldGeneration("v", 1), [one]))
            return protocol.Done(message.request)

        keeper.respond = respond
        async with connect(keeper.path, backups=backups):
            assert keeper.heard[1:] == [
                protocol.Rotate(2, "v", 2, second.plan, b"newer", second.snapshot.digest)
            ]
            assert keeper.contents[0][-3:] == b"two"
            assert sorted(next(iter(backups)).generations) == [1, 2]


async def test_rotation_without_answer_is_held(keeper: KeeperSocket, backups: Backups) -> None:
    """A keeper that dies with a generation gets it back from who had sent it."""

    def respond(message: protocol.NodeMessage) -> Answer:
        if isinstance(message, protocol.Rotate):
            keeper.hang_up()
            return None
        return protocol.Done(message.request)

    keeper.respond = respond
    with sealed({"a": b"1"}) as first, sealed({"a": b"two"}, first.snapshot) as second:
        async with connect(keeper.path, backups=backups) as client:
            with pytest.raises(errors.KeeperUnavailable):
                await client.rotate("v", second, record=b"newer")
        [backup] = backups
        assert (backup.unfinished, backup.record) == ([2], b"newer")


async def test_refused_rotation_is_not_held(keeper: KeeperSocket, backups: Backups) -> None:
    """What the keeper did not take is not given to the next one."""

    def respond(message: protocol.NodeMessage) -> Answer:
        if isinstance(message, protocol.Rotate):
            return protocol.Refused(message.request, "OverBudget", "too much")
        return protocol.Done(message.request)

    keeper.respond = respond
    with sealed({"a": b"1"}) as first, sealed({"a": b"two"}, first.snapshot) as second:
        async with connect(keeper.path, backups=backups) as client:
            with pytest.raises(errors.OverBudget):
                await client.rotate("v", second, record=b"newer")
        assert [sorted(backup.generations) for backup in backups] == [[1]]


async def test_dismissed_session_is_superseded(keeper: KeeperSocket, backups: Backups) -> None:
    """Once another node server is obeyed, nothing is held, and every call says why."""
    keeper.respond = lambda message: (
        protocol.Dismissed()
        if isinstance(message, protocol.UpdateRecord)
        else protocol.Done(message.request)
    )
    async with connect(keeper.path, backups=backups) as client:
        with pytest.raises(errors.Superseded):
            await client.update_record("v", b"r")
        with pytest.raises(errors.Superseded):
            await client.wait_lost()
        with pytest.raises(errors.Superseded):
            await client.unpublish("v", "/t")
        assert not backups


async def test_keeper_that_never_registers_is_unavailable(
    keeper: KeeperSocket, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keeper that is stopped is given up, and what is held for the next one stays."""
    monkeypatch.setattr(fusefs.client, "REGISTER_S", 0.05)
    keeper.respond = lambda _: None
    with pytest.raises(errors.KeeperUnavailable, match="to register"):
        async with connect(keeper.path, backups=backups):
            pass
    assert len(backups) == 1

"""What a node server holds of the volumes: announced, completed, changed, let go (conftest)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs
import msgspec
import pytest

from fusefs import protocol
from fusefs.backup import Backup, Backups, Incoming
from fusefs.errors import InvalidMessage
from fusefs.usage import MAX_GENERATIONS, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

VOLUME = protocol.VolumeBackup(
    volume_id="v",
    target="/t",
    slot=3,
    record=b"record",
    acknowledged=2,
    generations=(
        protocol.Generation(1, None),
        protocol.Generation(2, None),
        protocol.Generation(3, b"plan-3"),
    ),
    init_request=b"init",
    init_reply=b"reply",
    selinux_context="system_u:object_r:container_file_t:s0",
)


def descriptor() -> int:
    """Return a descriptor of nothing."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def pair(page: int | None = None) -> list[int]:
    """Return a device and a page of counts."""
    return [descriptor(), Usage.create() if page is None else os.dup(page)]


@pytest.fixture
def store() -> Iterator[Backups]:
    """Return a store; what it holds is closed in the end, and nothing else is open (conftest)."""
    made = Backups()
    yield made
    made.close()


@pytest.fixture
def page() -> Iterator[int]:
    """Return the page of counts of one incarnation of a volume."""
    made = Usage.create()
    yield made
    os.close(made)


def hold(store: Backups, volume: protocol.VolumeBackup, page: int | None = None) -> None:
    """Say all that is to be held of a volume."""
    store.take(protocol.Hold(volume), pair(page))
    for generation in volume.generations:
        notice = protocol.HoldGeneration(volume.volume_id, generation.number)
        store.take(notice, [descriptor()])


def only(store: Backups) -> Backup:
    """Return the only volume that is held."""
    [found] = store
    return found


def test_volume_is_held_once_it_is_whole(store: Backups) -> None:
    """Until its last generation has come there is nothing to give back."""
    store.take(protocol.Hold(VOLUME), pair())
    for number in (1, 2, 3):
        assert len(store) == 0
        store.take(protocol.HoldGeneration("v", number), [descriptor()])
    assert only(store).announcement() == VOLUME
    assert (only(store).unfinished, only(store).lacking()) == ([3], [])


def test_half_a_volume_leaves_the_one_before(store: Backups, page: int) -> None:
    """A keeper that dies while it tells what to hold has not taken anything away."""
    hold(store, VOLUME, page)
    newer = msgspec.structs.replace(VOLUME, acknowledged=3)
    store.take(protocol.Hold(newer), pair(page))
    store.take(protocol.HoldGeneration("v", 1), [descriptor()])
    store.begin_session()
    assert only(store).announcement() == VOLUME
    assert not only(store).confirmed


BROKEN = {
    "no-device": (VOLUME, 1),
    "too-much": (VOLUME, 3),
    "no-generation": (msgspec.structs.replace(VOLUME, generations=()), 2),
    "generation-zero": (
        msgspec.structs.replace(
            VOLUME, generations=(*VOLUME.generations, protocol.Generation(0, None))
        ),
        2,
    ),
    "twice": (msgspec.structs.replace(VOLUME, generations=VOLUME.generations * 2), 2),
    "acknowledged-unknown": (msgspec.structs.replace(VOLUME, acknowledged=9), 2),
    "new-without-plan": (msgspec.structs.replace(VOLUME, acknowledged=1), 2),
    "too-many": (
        msgspec.structs.replace(
            VOLUME,
            generations=tuple(
                protocol.Generation(number, b"") for number in range(1, MAX_GENERATIONS + 2)
            ),
        ),
        2,
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_announcements_are_refused(case: str) -> None:
    """What could not be served is not taken in; its descriptors stay the caller's."""
    volume, count = BROKEN[case]
    descriptors = [descriptor() for _ in range(count)]
    with pytest.raises(InvalidMessage, match="a backup has a device"):
        Incoming().announce(volume, descriptors)
    assert len(descriptors) == count
    for fd in descriptors:
        os.close(fd)


@pytest.mark.parametrize(("volume_id", "number"), [("w", 1), ("v", 4)])
def test_unannounced_generations_are_refused(volume_id: str, number: int) -> None:
    """A generation belongs to what was announced."""
    incoming = Incoming()
    incoming.announce(VOLUME, pair())
    with pytest.raises(InvalidMessage, match="was not announced"):
        incoming.add(volume_id, number, [])
    incoming.close()


def test_rotation_is_held_from_before_it_is_sent(store: Backups) -> None:
    """It is given back with its plan until it is acknowledged and over."""
    hold(store, VOLUME)
    fd = descriptor()
    store.rotating(protocol.Rotate(1, "v", 4, b"plan-4", b"newer", b"digest"), fd)
    os.close(fd)
    given_back = only(store).announcement()
    assert given_back.generations[3:] == (protocol.Generation(4, b"plan-4", b"digest"),)
    assert (given_back.acknowledged, given_back.record) == (2, b"newer")
    for finished, unfinished in ((False, [4]), (True, [])):
        store.take(protocol.Acknowledged("v", 4, finished=finished), [])
        assert (only(store).acknowledged, only(store).unfinished) == (4, unfinished)


def test_refused_rotation_is_let_go(store: Backups) -> None:
    """What the keeper did not take must not come back with the next one."""
    hold(store, VOLUME)
    message = protocol.Rotate(1, "v", 4, b"plan-4", b"newer")
    fd = descriptor()
    store.rotating(message, fd)
    os.close(fd)
    store.refused(message)
    assert sorted(only(store).generations) == [1, 2, 3]


def test_refusal_never_drops_the_acknowledged(store: Backups) -> None:
    """A repeated request for what is served is refused, and what is served stays."""
    hold(store, VOLUME)
    store.refused(protocol.Rotate(1, "v", 2, b"", b""))
    assert sorted(only(store).generations) == [1, 2, 3]


def test_stale_rotation_replaces_nothing(store: Backups) -> None:
    """A keeper refuses it, and what is held of that generation is what the keeper shows."""
    hold(store, VOLUME)
    before = {number: held.fd for number, held in only(store).generations.items()}
    for number in before:
        assert not store.rotating(protocol.Rotate(1, "v", number, b"other", b"other"), 0)
    assert {number: held.fd for number, held in only(store).generations.items()} == before
    assert only(store).announcement() == VOLUME


def test_older_acknowledgement_changes_nothing(store: Backups) -> None:
    """Acknowledgements only go up."""
    hold(store, VOLUME)
    store.take(protocol.Acknowledged("v", 1, finished=True), [])
    assert only(store).acknowledged == 2


def test_released_generations_are_let_go(store: Backups) -> None:
    """The node server holds what the keeper keeps, and no more."""
    hold(store, VOLUME)
    store.take(protocol.Released("v", (1, 9)), [])
    assert sorted(only(store).generations) == [2, 3]


def test_what_the_keeper_lacks_stays(store: Backups, page: int) -> None:
    """A keeper that never got the last rotation is told it again, from where it stands."""
    hold(store, VOLUME, page)
    fd = descriptor()
    store.rotating(protocol.Rotate(1, "v", 4, b"plan-4", b"newer"), fd)
    os.close(fd)
    store.begin_session()
    hold(store, VOLUME, page)
    assert (sorted(only(store).generations), only(store).lacking()) == ([1, 2, 3, 4], [4])


def test_higher_generation_of_the_keeper_wins(store: Backups, page: int) -> None:
    """What the keeper says replaces what was held of the same volume."""
    hold(store, msgspec.structs.replace(VOLUME, generations=VOLUME.generations[:2]), page)
    store.begin_session()
    hold(store, VOLUME, page)
    assert (only(store).announcement(), only(store).lacking()) == (VOLUME, [])


def test_namesake_takes_nothing_over(store: Backups) -> None:
    """A volume that was published anew under its name is another one, with other content."""
    hold(store, VOLUME)
    store.begin_session()
    hold(store, msgspec.structs.replace(VOLUME, generations=VOLUME.generations[:2]))
    assert sorted(only(store).generations) == [1, 2]


@pytest.mark.parametrize("notice", [protocol.LetGo("v"), protocol.Dismissed()], ids=str)
def test_let_go_volumes_are_closed(store: Backups, notice: protocol.KeeperNotice) -> None:
    """Nothing is held of a volume that has ended, or that another node server holds."""
    hold(store, VOLUME)
    store.take(notice, [])
    assert len(store) == 0


def test_news_of_unknown_volumes_is_nothing(store: Backups) -> None:
    """A volume that is not held yet will come with all that there is to know."""
    store.take(protocol.Acknowledged("v", 1, finished=True), [])
    store.take(protocol.Released("v", (1,)), [])
    store.take(protocol.LetGo("v"), [])
    store.rotating(protocol.Rotate(1, "v", 2, b"", b""), 0)
    store.refused(protocol.Rotate(1, "v", 2, b"", b""))
    store.recorded("v", b"record")
    assert len(store) == 0


def test_record_of_the_keeper_is_held(store: Backups) -> None:
    """A record that was replaced is given back as it is."""
    hold(store, VOLUME)
    store.recorded("v", b"other")
    assert only(store).announcement() == msgspec.structs.replace(VOLUME, record=b"other")


def test_backup_does_not_print_what_it_holds(store: Backups) -> None:
    """Plans and records name files, and a log is no place for them."""
    hold(store, VOLUME)
    assert "plan" not in repr(only(store)).replace("plan=", "")
    assert "record" not in repr(only(store))
    assert {"record", "init_request"} <= {field.name for field in attrs.fields(Backup)}

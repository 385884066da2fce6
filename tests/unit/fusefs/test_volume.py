"""The life of a volume, event by event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from fusefs import effects
from fusefs.backoff import FIRST_BACKOFF_S, STABLE_S
from fusefs.errors import InvalidMessage, TargetRefused, VolumeFailed, VolumeUnknown
from fusefs.volume import (
    MAX_START_FAILURES,
    NOTIFY_RETRY_S,
    TOUCH_RETRY_S,
    Phase,
    Volume,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLISH: Final = effects.Ticket(1, 1)
SECOND: Final = effects.Rotation(2, 1, b"plan-2", effects.Ticket(1, 2))
THIRD: Final = effects.Rotation(3, 2, b"plan-3", effects.Ticket(1, 3))
COMING_UP: Final[list[Phase]] = ["clearing", "starting", "priming", "settling"]
ROTATING: Final[list[Phase]] = ["swapping", "touching", "notifying"]
ALL: Final[list[Phase]] = [*COMING_UP, "serving", *ROTATING]


def volume_in(phase: Phase) -> Volume:
    """Return a volume that has come to `phase` the usual way; rotations are of SECOND."""
    volume = Volume(1, PUBLISH)
    way: list[tuple[Phase, Callable[[], object]]] = [
        ("clearing", volume.begin),
        ("starting", volume.target_cleared),
        ("priming", volume.worker_ready),
        ("settling", lambda: volume.primed_by_child(succeeded=True)),
        ("serving", volume.attached),
        ("swapping", lambda: volume.rotate(SECOND)),
        ("touching", lambda: volume.swapped(2)),
        ("notifying", volume.touch_acknowledged),
    ]
    for reached, event in way:
        event()
        assert volume.phase == reached
        if reached == phase:
            return volume
    message = f"no way leads to {phase}"
    raise AssertionError(message)


def test_publish_goes_phase_by_phase() -> None:
    """Each event asks for what comes next; the ticket is answered when the target shows it."""
    volume = Volume(1, PUBLISH)
    assert volume.begin() == [effects.ClearTarget()]
    assert volume.target_cleared() == [effects.StartWorker()]
    assert volume.worker_ready() == [effects.StartPriming()]
    assert not volume.primed
    assert volume.primed_by_child(succeeded=True) == [effects.EndPriming()]
    assert volume.primed
    assert volume.priming_ended() == [effects.Attach()]
    assert volume.attached() == [effects.Answer(PUBLISH)]
    assert volume.phase == "serving"


def test_rotation_goes_phase_by_phase() -> None:
    """It is acknowledged when the plan is carried out, and over when the events are raised."""
    volume = volume_in("serving")
    assert volume.rotate(SECOND) == [effects.SendSwap(SECOND)]
    assert (volume.acknowledged, volume.newest, volume.served) == (1, 2, 2)
    assert volume.swapped(2) == [effects.StartTouch(SECOND)]
    assert volume.acknowledged == 1
    assert volume.touch_acknowledged() == [effects.Answer(SECOND.ticket)]
    assert volume.acknowledged == 2
    assert volume.plan_in_progress == b"plan-2"
    assert volume.touch_ended(busy=()) == [effects.EndTouch(finished=True)]
    assert volume.phase == "serving"
    assert volume.plan_in_progress is None


def test_rotations_wait_for_those_before_them() -> None:
    """One at a time; the next one starts when the one before is over."""
    volume = volume_in("notifying")
    assert volume.rotate(THIRD) == []
    assert (volume.served, volume.newest) == (2, 3)
    assert volume.touch_ended(busy=()) == [effects.EndTouch(finished=True), effects.SendSwap(THIRD)]
    assert volume.rotation == THIRD


def test_rotation_waits_until_the_target_shows() -> None:
    """What is handed in while the volume comes up is brought in right after."""
    volume = volume_in("settling")
    assert volume.rotate(SECOND) == []
    assert volume.served == 1
    assert volume.attached() == [effects.Answer(PUBLISH), effects.SendSwap(SECOND)]


@pytest.mark.parametrize("phase", COMING_UP)
def test_repeated_publish_waits_for_the_target(phase: Phase) -> None:
    """A second request for the same volume is answered with the first, not before."""
    again = effects.Ticket(2, 9)
    volume = volume_in(phase)
    assert volume.publish_again(again) == []
    for event in (volume.target_cleared, volume.worker_ready):
        event()
    volume.primed_by_child(succeeded=True)
    assert volume.attached() == [effects.Answer(PUBLISH), effects.Answer(again)]


@pytest.mark.parametrize("phase", ["serving", *ROTATING])
def test_repeated_publish_is_done_when_served(phase: Phase) -> None:
    """Once the target shows the volume, publishing again is done already."""
    again = effects.Ticket(2, 9)
    assert volume_in(phase).publish_again(again) == [effects.Answer(again)]


@pytest.mark.parametrize("phase", ALL)
def test_spared_generations_may_be_needed(phase: Phase) -> None:
    """The acknowledged one, those of the plan and those that wait are never dropped."""
    volume = volume_in(phase)
    volume.rotate(THIRD if phase in ROTATING else SECOND)
    assert volume.spared() == ({1, 2, 3} if phase in ROTATING else {1, 2})
    if phase == "notifying":
        volume.touch_ended(busy=())
        assert volume.spared() == {2, 3}


# Events that come when they are not expected


@pytest.mark.parametrize("phase", ALL)
def test_events_out_of_place_change_nothing(phase: Phase) -> None:
    """What a late or lying worker says in the wrong phase has no effect."""
    expected: dict[str, list[Phase]] = {
        "target_cleared": ["clearing"],
        "primed": ["priming"],
        "priming_ended": ["settling"],
        "attached": ["settling"],
        "swapped": ["swapping"],
        "rejected": ["swapping"],
        "touch_acknowledged": ["touching"],
        "touch_ended": ["touching", "notifying"],
        "retry": [],
    }
    events: dict[str, Callable[[Volume], object]] = {
        "target_cleared": Volume.target_cleared,
        "primed": lambda volume: volume.primed_by_child(succeeded=False),
        "priming_ended": Volume.priming_ended,
        "attached": Volume.attached,
        "swapped": lambda volume: volume.swapped(2),
        "rejected": lambda volume: volume.rejected(2, "x"),
        "touch_acknowledged": Volume.touch_acknowledged,
        "touch_ended": lambda volume: volume.touch_ended(busy=None),
        "retry": Volume.retry,
    }
    for name, event in events.items():
        if phase not in expected[name]:
            volume = volume_in(phase)
            assert event(volume) == []
            assert volume.phase == phase


@pytest.mark.parametrize("generation", [1, 3])
def test_swap_of_another_generation_is_ignored(generation: int) -> None:
    """A worker that names another generation has not swapped."""
    assert volume_in("swapping").swapped(generation) == []


# Workers that die


@pytest.mark.parametrize("phase", ALL[1:])
def test_dead_worker_is_replaced_in_any_phase(phase: Phase) -> None:
    """Its successor is started at once, and the phase stays."""
    volume = volume_in(phase)
    assert volume.worker_died(lived_s=STABLE_S) == [effects.StartWorker()]
    assert volume.phase == phase


READY_AGAIN: Final[dict[Phase, list[effects.Effect]]] = {
    "priming": [],
    "settling": [effects.EndPriming()],
    "serving": [],
    "swapping": [],
    "touching": [],
    "notifying": [],
}


@pytest.mark.parametrize(("phase", "told"), READY_AGAIN.items())
def test_successor_is_told_of_the_end_of_priming(phase: Phase, told: list[effects.Effect]) -> None:
    """It may have been forked before; of rotations each worker hears once, in another way."""
    volume = volume_in(phase)
    volume.worker_died(lived_s=STABLE_S)
    assert volume.worker_ready() == told
    assert volume.phase == phase


# Freezing


def test_freeze_waits_for_what_is_under_way() -> None:
    """A rotation comes to its end first, one that waits its turn is refused at once."""
    volume = volume_in("notifying")
    waiting = effects.Rotation(3, 2, b"", effects.Ticket(1, 77))
    assert volume.rotate(waiting) == []
    discarded, refused = volume.freeze()
    assert discarded == effects.Discard(3)
    assert isinstance(refused, effects.Answer)
    assert (refused.ticket, type(refused.error)) == (waiting.ticket, VolumeFailed)
    assert volume.touch_ended(busy=("a",))[-1] == effects.Fossilize()
    assert volume.phase == "freezing"


def test_freeze_waits_for_a_worker() -> None:
    """Nobody can be told while the worker is being replaced."""
    volume = volume_in("serving")
    volume.worker_died(lived_s=STABLE_S)
    assert volume.freeze() == []
    assert volume.worker_ready()[-1] == effects.Fossilize()


@pytest.mark.parametrize("phase", ["clearing", "starting", "priming", "settling"])
def test_freeze_gives_up_what_nobody_has_seen(phase: Phase) -> None:
    """No pod waits for it in vain: its publish is answered."""
    torn, answer = volume_in(phase).freeze()
    assert torn == effects.TearDown()
    assert isinstance(answer, effects.Answer)
    assert answer.error is not None


def test_news_of_a_freeze_need_a_freeze() -> None:
    """What a worker or a child says out of turn changes nothing."""
    volume = volume_in("serving")
    assert volume.worker_freezes() == []
    assert volume.filled(succeeded=True) == []
    assert volume.drained() == []


def test_rotation_does_not_wait_for_readiness() -> None:
    """A worker that is not ready finds it in its socket; one to be forked is forked with it."""
    volume = volume_in("serving")
    volume.worker_died(lived_s=STABLE_S)
    assert volume.rotate(SECOND) == [effects.SendSwap(SECOND)]
    assert (volume.served, volume.plan_in_progress) == (2, b"plan-2")
    assert volume.worker_ready() == []
    assert volume.swapped(2) == [effects.StartTouch(SECOND)]


def test_end_of_priming_without_a_worker() -> None:
    """The target does not show before a successor has hidden the priming file."""
    volume = volume_in("priming")
    volume.worker_died(lived_s=STABLE_S)
    assert volume.primed_by_child(succeeded=True) == []
    assert volume.worker_ready() == [effects.EndPriming()]
    assert volume.phase == "settling"


def test_worker_that_served_is_replaced_soon() -> None:
    """Somebody killed it, so its successor can serve too."""
    volume = volume_in("serving")
    for _ in range(9):
        assert volume.worker_died(lived_s=STABLE_S) == [effects.StartWorker(0.0)]
        volume.worker_ready()


def test_workers_that_never_serve_come_ever_later() -> None:
    """Were they started at once, a crash loop would take a processor."""
    volume = volume_in("serving")
    volume.worker_died(lived_s=STABLE_S)
    for delay in (0.0, FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S):
        assert volume.worker_died(lived_s=100) == [effects.StartWorker(delay)]


@pytest.mark.parametrize("phase", COMING_UP[1:])
def test_crash_loop_ends_what_nobody_uses_yet(phase: Phase) -> None:
    """While it comes up, a volume whose workers keep dying is given up with an answer."""
    volume = volume_in(phase)
    for _ in range(MAX_START_FAILURES - 1):
        assert isinstance(volume.worker_died(lived_s=0)[0], effects.StartWorker)
    torn, answer = volume.worker_died(lived_s=0)
    assert torn == effects.TearDown()
    assert isinstance(answer, effects.Answer)
    assert answer.ticket == PUBLISH
    assert isinstance(answer.error, VolumeFailed)


# Touch children


def test_failed_touch_child_is_tried_again() -> None:
    """The plan stays in progress, and a new child starts from its beginning after a while."""
    volume = volume_in("touching")
    expected = [effects.EndTouch(finished=False), effects.RetryLater(TOUCH_RETRY_S)]
    assert volume.touch_ended(busy=None) == expected
    assert volume.retry() == [effects.StartTouch(SECOND)]
    assert volume.touch_acknowledged() == [effects.Answer(SECOND.ticket)]


def test_one_touch_child_at_a_time() -> None:
    """A retry that was due for something else starts none beside the one that runs."""
    volume = volume_in("touching")
    assert volume.retry() == []
    volume.touch_ended(busy=None)
    assert volume.retry() == [effects.StartTouch(SECOND)]
    assert volume.retry() == []


def test_owed_events_are_raised_later() -> None:
    """Files that were busy get their event when they are no longer."""
    volume = volume_in("notifying")
    expected = [effects.EndTouch(finished=False), effects.RetryLater(NOTIFY_RETRY_S)]
    assert volume.touch_ended(busy=("a", "b")) == expected
    assert volume.owed == ("a", "b")
    assert volume.retry() == [effects.StartTouch(SECOND, ("a", "b"))]
    assert volume.touch_ended(busy=("b",)) == expected
    assert volume.retry() == [effects.StartTouch(SECOND, ("b",))]
    assert volume.touch_ended(busy=()) == [effects.EndTouch(finished=True)]
    assert volume.retry() == []


def test_owed_events_give_way_to_a_rotation() -> None:
    """A rotation does not wait for them: its own events tell of the newest content."""
    volume = volume_in("notifying")
    volume.touch_ended(busy=("a",))
    assert volume.rotate(THIRD) == [effects.EndTouch(finished=True), effects.SendSwap(THIRD)]
    volume.swapped(3)
    assert volume.retry() == []


def test_child_that_dies_raising_events_is_done() -> None:
    """The rotation is acknowledged already: lost events do not hold up the next one."""
    volume = volume_in("notifying")
    assert volume.touch_ended(busy=None) == [effects.EndTouch(finished=True)]


# Effects that fail


@pytest.mark.parametrize("phase", COMING_UP)
def test_failed_effect_ends_what_comes_up(phase: Phase) -> None:
    """The request is answered with the reason, the keeper's own kept as it is."""
    refused = TargetRefused("it is a file")
    volume = volume_in(phase)
    found = volume.effect_failed(effects.ClearTarget(), refused)
    assert found == [effects.TearDown(), effects.Answer(PUBLISH, refused)]
    volume = volume_in(phase)
    _, answer = volume.effect_failed(effects.StartWorker(), OSError(11, "no more processes"))
    assert isinstance(answer, effects.Answer)
    assert isinstance(answer.error, VolumeFailed)
    assert "no more processes" in str(answer.error)


def test_worker_that_cannot_start_is_tried_again() -> None:
    """A node without room for a process is not the end of a volume that is in use."""
    volume = volume_in("serving")
    volume.worker_died(lived_s=STABLE_S)
    for delay in (0.0, FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S):
        found = volume.effect_failed(effects.StartWorker(), OSError(11, "x"))
        assert found == [effects.StartWorker(delay)]


def test_swap_that_cannot_be_sent_is_sent_again() -> None:
    """A rotation is not forgotten because its message was not sent."""
    volume = volume_in("swapping")
    found = volume.effect_failed(effects.SendSwap(SECOND), OSError(24, "x"))
    assert found == [effects.RetryLater(TOUCH_RETRY_S)]
    assert volume.retry() == [effects.SendSwap(SECOND)]
    assert volume.retry() == []


def test_unsent_swap_is_left_to_a_successor() -> None:
    """A worker that is forked with the rotation must not be told of it again."""
    volume = volume_in("swapping")
    volume.effect_failed(effects.SendSwap(SECOND), OSError(24, "x"))
    volume.worker_died(lived_s=STABLE_S)
    assert volume.retry() == []


def test_rejected_generation_is_forgotten() -> None:
    """Its request is refused, its memory let go of, and those that wait go on."""
    volume = volume_in("swapping")
    volume.rotate(THIRD)
    discard, answer, sent = volume.rejected(2, "no plan")
    assert (discard, sent) == (effects.Discard(2), effects.SendSwap(THIRD))
    assert isinstance(answer, effects.Answer)
    assert answer.ticket == SECOND.ticket
    assert isinstance(answer.error, InvalidMessage)
    assert "no plan" in str(answer.error)
    volume.rejected(3, "it leads from a generation that is not there")
    assert (volume.phase, volume.newest, volume.waiting) == ("serving", 1, 0)


def test_volume_is_shown_until_it_ends() -> None:
    """A volume is listed from its first answer on; what comes up or has ended is not."""
    assert [phase for phase in ALL if volume_in(phase).is_shown] == ["serving", *ROTATING]
    volume = volume_in("serving")
    volume.unpublish()
    assert not volume.is_shown


def test_waiting_generations_are_counted() -> None:
    """The keeper takes no more than a few at a time: each is locked in memory."""
    counts = {}
    for phase in ALL:
        volume = volume_in(phase)
        volume.rotate(THIRD)
        counts[phase] = volume.waiting
    assert counts == dict.fromkeys(ALL, 1) | {"swapping": 2, "touching": 2}


def test_end_that_fails_is_tried_again() -> None:
    """The worker must hear that the plan is over, and the superblock be read-only again."""
    end = effects.EndTouch(finished=True)
    volume = volume_in("notifying")
    volume.touch_ended(busy=())
    assert volume.effect_failed(end, OSError(16, "x")) == [effects.RetryLater(TOUCH_RETRY_S)]
    assert volume.retry() == [end]
    assert volume.retry() == []


def test_failed_end_is_left_to_the_next_rotation() -> None:
    """A rotation that the worker adopts takes the place of the plan, and ends later."""
    volume = volume_in("notifying")
    volume.rotate(THIRD)
    end, _ = volume.touch_ended(busy=())
    assert volume.effect_failed(end, OSError(16, "x")) == [effects.RetryLater(TOUCH_RETRY_S)]
    assert volume.retry() == []
    volume.swapped(3)
    volume.touch_acknowledged()
    assert volume.touch_ended(busy=()) == [end]
    assert volume.retry() == []


def test_failed_end_is_made_up_after_a_rejection() -> None:
    """A rotation that the worker rejects leaves the plan before it in place."""
    volume = volume_in("notifying")
    volume.rotate(THIRD)
    end, _ = volume.touch_ended(busy=())
    volume.effect_failed(end, OSError(16, "x"))
    assert effects.RetryLater(TOUCH_RETRY_S) in volume.rejected(3, "no plan")
    assert volume.retry() == [end]


def test_touch_that_cannot_start_is_started_again() -> None:
    """Neither the plan nor owed events are forgotten because no child could be forked."""
    failed = effects.StartTouch(SECOND)
    volume = volume_in("touching")
    assert volume.effect_failed(failed, OSError(11, "x")) == [effects.RetryLater(TOUCH_RETRY_S)]
    assert volume.retry() == [failed]
    volume.touch_acknowledged()
    volume.touch_ended(busy=("a",))
    again = effects.StartTouch(SECOND, ("a",))
    assert volume.retry() == [again]
    assert volume.effect_failed(again, OSError(11, "x")) == [effects.RetryLater(TOUCH_RETRY_S)]
    assert volume.retry() == [again]


def test_owed_touch_holds_up_no_rotation() -> None:
    """A rotation that waits for owed events gets its turn when no child can raise them."""
    volume = volume_in("notifying")
    volume.touch_ended(busy=("a",))
    [again] = volume.retry()
    volume.rotate(THIRD)
    found = volume.effect_failed(again, OSError(11, "x"))
    assert found[1:] == [effects.EndTouch(finished=True), effects.SendSwap(THIRD)]


# The end


@pytest.mark.parametrize("phase", ALL)
def test_end_answers_every_ticket_exactly_once(phase: Phase) -> None:
    """Whoever waits is told, whoever was told is not told again, and then nothing happens."""
    volume = volume_in(phase)
    again = effects.Ticket(7, 7)
    volume.publish_again(again)
    volume.rotate(THIRD)
    waiting = [PUBLISH, again] if phase in COMING_UP else []
    waiting += [SECOND.ticket] if phase in ("swapping", "touching") else []
    torn, *answers = volume.unpublish()
    assert torn == effects.TearDown()
    tickets = [one.ticket for one in answers if isinstance(one, effects.Answer)]
    assert tickets == [*waiting, THIRD.ticket]
    assert all(
        isinstance(one.error, VolumeUnknown) for one in answers if isinstance(one, effects.Answer)
    )
    assert volume.unpublish() == volume.connection_lost() == []
    assert nothing_happens(volume)


def nothing_happens(volume: Volume) -> bool:
    """Return whether every event that can still come is without effect."""
    found = [
        *volume.target_cleared(),
        *volume.worker_ready(),
        *volume.primed_by_child(succeeded=True),
        *volume.priming_ended(),
        *volume.attached(),
        *volume.swapped(2),
        *volume.swapped(3),
        *volume.touch_acknowledged(),
        *volume.touch_ended(busy=()),
        *volume.retry(),
        *volume.worker_died(lived_s=0),
        *volume.effect_failed(effects.TearDown(), OSError(1, "x")),
    ]
    return found == [] and volume.phase == "closed"


def test_late_requests_are_answered() -> None:
    """A request that reaches a volume that has ended is refused, not forgotten."""
    volume = volume_in("serving")
    volume.unpublish()
    for found in (volume.rotate(SECOND), volume.publish_again(SECOND.ticket)):
        [answer] = found
        assert isinstance(answer, effects.Answer)
        assert answer.ticket == SECOND.ticket
        assert isinstance(answer.error, VolumeUnknown)


def test_lost_connection_ends_the_volume() -> None:
    """A connection that was aborted can be served by nobody; the waiting are told so.

    The dead target stays: an empty directory would look like no secrets.
    """
    torn, answer = volume_in("touching").connection_lost()
    assert torn == effects.LetGo()
    assert isinstance(answer, effects.Answer)
    assert isinstance(answer.error, VolumeFailed)


def test_mount_that_cannot_be_primed_is_given_up() -> None:
    """An unprimed mount could leave killed readers hanging: it is never shown."""
    torn, answer = volume_in("priming").primed_by_child(succeeded=False)
    assert torn == effects.TearDown()
    assert isinstance(answer, effects.Answer)
    assert isinstance(answer.error, VolumeFailed)

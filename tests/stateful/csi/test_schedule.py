"""The schedule against a plain model: who is refreshed when, over any sequence of events."""

from __future__ import annotations

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from csi.records import VolumeId
from csi.schedule import Schedule, backoff

JITTER = 0.25
INTERVALS = {"fast": 10.0, "slow": 3600.0}
NAMES = st.sampled_from([VolumeId(f"volume-{number}") for number in range(4)])


@attrs.define
class Expected:
    """What the model knows of a volume: never earlier than, at the latest by."""

    group: str
    failures: int = 0
    running_since: float | None = None
    earliest: float = 0.0
    latest: float = 0.0
    again_by: float | None = None


class ScheduleMachine(RuleBasedStateMachine):
    """Volumes come, go, succeed and fail while time passes."""

    running = Bundle("running")

    def __init__(self) -> None:
        """Start at an arbitrary time without volumes."""
        super().__init__()
        self.schedule = Schedule(node="node", jitter=JITTER)
        self.now = 1000.0
        self.model: dict[VolumeId, Expected] = {}

    @rule(volume=NAMES, group=st.sampled_from(sorted(INTERVALS)))
    def publish(self, volume: VolumeId, group: str) -> None:
        """A volume appears; it may share the next tick of others."""
        interval = INTERVALS[group]
        self.schedule.add(volume, group, interval, self.now)
        latest = self.now + interval * (1 + JITTER)
        before = self.model.get(volume)
        again_by = None if before is None else before.again_by
        self.model[volume] = Expected(group, earliest=self.now, latest=latest, again_by=again_by)

    @rule(volume=NAMES)
    def unpublish(self, volume: VolumeId) -> None:
        """A volume goes, wherever it is."""
        self.schedule.remove(volume)
        self.model.pop(volume, None)

    @rule(target=running, seconds=st.floats(0, 4000))
    def pass_time(self, seconds: float) -> object:
        """Time passes up to the next due moment, and what is due is taken."""
        self.now = max(self.now, min(self.now + seconds, self.schedule.next_due()))
        taken = self.schedule.take_due(self.now)
        assert len(taken) == len(set(taken))
        for volume in taken:
            expected = self.model[volume]
            assert expected.running_since is None
            assert expected.earliest <= self.now
            expected.running_since = self.now
        return multiple(*taken)

    @rule(volume=consumes(running), seconds=st.floats(0, 100))
    def succeed(self, volume: VolumeId, seconds: float) -> None:
        """A refresh ends well."""
        self._pass(seconds)
        expected = self.model.get(volume)
        interval = INTERVALS[expected.group] if expected else 1.0
        self.schedule.succeeded(volume, interval, self.now)
        if expected is not None:
            expected.failures, expected.running_since = 0, None
            expected.earliest = self.now
            expected.latest = self.now + interval * (1 + JITTER)
            self._repeat(expected)

    @rule(volume=consumes(running), seconds=st.floats(0, 100))
    def fail(self, volume: VolumeId, seconds: float) -> None:
        """A refresh fails; its delay counts from its start, unless it took longer than that."""
        self._pass(seconds)
        failures = self.schedule.failed(volume, self.now)
        expected = self.model.get(volume)
        if expected is None:
            assert failures == 0
            return
        expected.failures += 1
        assert failures == expected.failures
        delay = backoff(failures, INTERVALS[expected.group])
        started = self.now if expected.running_since is None else expected.running_since
        expected.earliest = min(started + delay, self.now + delay)
        expected.latest = self.now + delay * (1 + JITTER)
        expected.running_since = None
        self._repeat(expected)

    @rule(volumes=st.sets(NAMES), spread=st.sampled_from([0.0, 5.0]))
    def outdate(self, volumes: set[VolumeId], spread: float) -> None:
        """A class is edited: everything is due within the spread, or after what is under way."""
        self.schedule.outdate(volumes, self.now, spread=spread)
        for volume in volumes & self.model.keys():
            expected = self.model[volume]
            if expected.running_since is not None:
                expected.again_by = self.now + spread
            else:
                expected.earliest = min(expected.earliest, self.now)
                expected.latest = self.now + spread

    @rule(volume=NAMES)
    def hasten(self, volume: VolumeId) -> None:
        """New credentials let a volume try at once."""
        self.schedule.hasten(volume, self.now)
        expected = self.model.get(volume)
        if expected is not None:
            expected.earliest = expected.latest = self.now

    @invariant()
    def holds(self) -> None:
        """The schedule's own invariants hold, and no volume is forgotten."""
        self.schedule.check_invariants()
        waiting = [each for each in self.model.values() if each.running_since is None]
        if waiting:
            assert self.schedule.next_due() <= min(each.latest for each in waiting) + 1e-6
        for volume in self.model:
            assert volume in self.schedule

    def _repeat(self, expected: Expected) -> None:
        """After the end of a refresh that was outdated, the next is due."""
        if expected.again_by is not None:
            expected.earliest, expected.latest = 0.0, expected.again_by
            expected.again_by = None

    def _pass(self, seconds: float) -> None:
        """Let time pass without looking: the loop may be late."""
        self.now = max(self.now, min(self.now + seconds, self.schedule.next_due()))


TestSchedule = ScheduleMachine.TestCase

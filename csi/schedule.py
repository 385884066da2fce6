"""When each volume asks its provider again: a synchronous state machine over a clock given to it.

Volumes of one class and one identity form a group with a common tick, so that the provider can
merge their reads. A tick comes every interval, lengthened by a jitter that differs from node to
node: a class used on every node of a cluster must not ask the vault in the same second everywhere.

A volume whose refresh failed leaves the tick until one succeeds. Its delays grow exponentially;
they count from the tick and have the jitter of the group, so volumes that fail together try again
together.
"""

import random
from collections.abc import Hashable, Iterable
from typing import Final

import attrs

from csi.errors import InvariantViolated
from csi.records import VolumeId

NEVER: Final = float("inf")
_MAX_BACKOFF_S: Final = 600.0
_MAX_BACKOFF_INTERVALS: Final = 30  # a class refreshed every second shall not wait ten minutes
_MAX_DOUBLINGS: Final = 20  # beyond it 2**n only overflows


def backoff(failures: int, interval: float) -> float:
    """Return the seconds to wait after so many failures in a row, without jitter.

    The first delay is the interval; the last is ten minutes or 30 intervals, whichever is less,
    but never below the interval.
    """
    limit = max(interval, min(_MAX_BACKOFF_S, _MAX_BACKOFF_INTERVALS * interval))
    return float(min(limit, interval * 2 ** min(failures - 1, _MAX_DOUBLINGS)))


@attrs.define(kw_only=True)
class _Group:
    interval: float
    factor: float
    next_tick: float
    members: set[VolumeId] = attrs.field(factory=set)


@attrs.define(kw_only=True)
class _Member:
    group: Hashable
    failures: int = 0
    retry_at: float | None = None
    started_at: float | None = None  # a refresh is under way
    again_at: float | None = None  # and what it fetches may be outdated already


class Schedule:
    """The next refresh of every volume that has one."""

    def __init__(self, *, node: str, jitter: float) -> None:
        """Start empty.

        Args:
            node: Seeds the jitter, so that it is another one on each node.
            jitter: By how much of itself an interval may grow, 0 to 1.
        """
        # Invariant: a member's group exists and names it; no group is without members.
        # Invariant: a member whose last refresh failed has a time to retry.
        self._groups: dict[Hashable, _Group] = {}
        self._members: dict[VolumeId, _Member] = {}
        self._random = random.Random(node)  # noqa: S311 - spreads load, keeps no secret
        self._jitter = jitter

    def __contains__(self, volume_id: VolumeId) -> bool:
        """Return whether the volume has a next refresh."""
        return volume_id in self._members

    def is_member(self, volume_id: VolumeId, group: Hashable) -> bool:
        """Return whether the volume has its next refresh with this group."""
        member = self._members.get(volume_id)
        return member is not None and member.group == group

    def add(self, volume_id: VolumeId, group: Hashable, interval: float, now: float) -> None:
        """Give a volume that has fresh content its place; a known one may change its group."""
        before = self._members.get(volume_id)
        self.remove(volume_id)
        found = self._groups.get(group)
        if found is None:
            found = _Group(interval=interval, factor=1.0, next_tick=NEVER)
            self._groups[group] = found
            self._advance(found, now)
        _set_interval(found, interval, now)
        found.members.add(volume_id)
        again_at = None if before is None else before.again_at
        self._members[volume_id] = _Member(group=group, again_at=again_at)

    def remove(self, volume_id: VolumeId) -> None:
        """Take a volume out; an unknown one is fine."""
        member = self._members.pop(volume_id, None)
        if member is None:
            return
        group = self._groups[member.group]
        group.members.discard(volume_id)
        if not group.members:
            del self._groups[member.group]

    def next_due(self) -> float:
        """Return when `take_due` next has something to give."""
        ticks = (group.next_tick for group in self._groups.values())
        retries = (
            member.retry_at
            for member in self._members.values()
            if member.retry_at is not None and member.started_at is None
        )
        return min((*ticks, *retries), default=NEVER)

    def take_due(self, now: float) -> list[VolumeId]:
        """Return the volumes to refresh now, and note that their refresh is under way."""
        due = []
        for group in self._groups.values():
            if group.next_tick <= now:
                self._advance(group, now)
                due += [each for each in sorted(group.members) if self._in_step(each)]
        due += [each for each, member in self._members.items() if _retries(member, now)]
        for volume_id in due:
            self.start(volume_id, now)
        return due

    def is_due(self, volume_id: VolumeId, now: float) -> bool:
        """Return whether a volume waits for a refresh that nobody has begun."""
        member = self._members.get(volume_id)
        if member is None or member.started_at is not None:
            return False
        if member.retry_at is not None:
            return member.retry_at <= now
        return self._groups[member.group].next_tick <= now

    def start(self, volume_id: VolumeId, now: float) -> None:
        """Note that a refresh is under way."""
        member = self._members.get(volume_id)
        if member is not None:
            member.started_at = now

    def hasten(self, volume_id: VolumeId, now: float) -> None:
        """Let a volume try again at once, because what made it fail may be gone."""
        member = self._members.get(volume_id)
        if member is not None:
            member.retry_at = now

    def outdate(self, volume_ids: Iterable[VolumeId], now: float, *, spread: float) -> None:
        """Refresh volumes soon; where a refresh is under way, after it.

        Args:
            volume_ids: The volumes; unknown ones are fine.
            now: The time.
            spread: The seconds within which it happens: on each node, and for each group of it, at
                another moment, but for all volumes of a group at the same.
        """
        moments: dict[Hashable, float] = {}
        for volume_id in volume_ids:
            member = self._members.get(volume_id)
            if member is None:
                continue
            if member.group not in moments:
                moments[member.group] = now + spread * self._random.random()
            moment = moments[member.group]
            # Never later than planned: who edits again and again must not put it off for ever.
            if member.started_at is not None:
                member.again_at = _earlier(member.again_at, moment)
            else:
                member.retry_at = _earlier(member.retry_at, moment)

    def succeeded(self, volume_id: VolumeId, interval: float, now: float) -> None:
        """Note a success: the volume is back in the tick of its group, which may have changed."""
        member = self._members.get(volume_id)
        if member is None:
            return  # unpublished meanwhile
        _set_interval(self._groups[member.group], interval, now)
        member.failures = 0
        member.retry_at, member.again_at = member.again_at, None
        member.started_at = None

    def ended(self, volume_id: VolumeId) -> None:
        """Note that a refresh is not under way any more, whatever became of it."""
        member = self._members.get(volume_id)
        if member is not None:
            member.started_at = None

    def is_failing(self, volume_id: VolumeId) -> bool:
        """Return whether the last refresh of a volume failed."""
        member = self._members.get(volume_id)
        return member is not None and member.failures > 0

    def failed(self, volume_id: VolumeId, now: float) -> int:
        """Note a failure; return how many there were in a row."""
        member = self._members.get(volume_id)
        if member is None:
            return 0
        group = self._groups[member.group]
        member.failures += 1
        delay = backoff(member.failures, group.interval) * group.factor
        started = now if member.started_at is None else member.started_at
        # A failure that took longer than its delay must not be followed by another at once.
        member.retry_at = started + delay if started + delay > now else now + delay
        if member.again_at is not None:
            member.retry_at = member.again_at  # it failed with what is outdated
        member.started_at, member.again_at = None, None
        return member.failures

    def check_invariants(self) -> None:
        """Raise `InvariantViolated` unless the invariants of `__init__` hold."""
        for volume_id, member in self._members.items():
            if volume_id not in self._groups[member.group].members:
                message = f"volume {volume_id} is not in its group"
                raise InvariantViolated(message)
            if member.failures and member.retry_at is None:
                message = f"volume {volume_id} failed and is not tried again"
                raise InvariantViolated(message)
        for group in self._groups.values():
            if not group.members or not group.members <= self._members.keys():
                message = "a group is empty or names a volume that is not scheduled"
                raise InvariantViolated(message)

    def _advance(self, group: _Group, now: float) -> None:
        group.factor = 1.0 + self._jitter * self._random.random()
        group.next_tick = now + group.interval * group.factor

    def _in_step(self, volume_id: VolumeId) -> bool:
        member = self._members[volume_id]
        return member.retry_at is None and member.started_at is None


def _set_interval(group: _Group, interval: float, now: float) -> None:
    """A shorter interval counts from now on, a longer one from the next tick."""
    group.interval = interval
    group.next_tick = min(group.next_tick, now + interval * group.factor)


def _earlier(planned: float | None, moment: float) -> float:
    return moment if planned is None else min(planned, moment)


def _retries(member: _Member, now: float) -> bool:
    return member.started_at is None and member.retry_at is not None and member.retry_at <= now

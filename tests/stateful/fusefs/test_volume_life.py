"""The life of a volume under chaos: workers die, effects fail, requests come at any time."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from typing_extensions import override

from fakes.host import BROKEN, STEADY_S, FakeHost
from fusefs import effects
from fusefs.volume import Phase, Volume

pytestmark = pytest.mark.timeout(300)  # shrinking a failure takes its time

LEGAL: Final[dict[Phase, set[Phase]]] = {
    "clearing": {"starting"},
    "starting": {"priming"},
    "priming": {"settling"},
    "settling": {"serving", "swapping"},
    "serving": {"swapping", "notifying", "freezing"},
    "swapping": {"touching", "serving", "swapping", "freezing"},
    "touching": {"notifying"},
    "notifying": {"serving", "swapping", "freezing"},
    "freezing": set(),
    "closed": set(),
}
# Most runs begin with a volume that is served: six calm steps bring it up.
CALM: Final = st.sampled_from([8, 8, 8, 8, 0, 1, 2, 3, 4, 5])
THEN: Final = st.integers(0, 4)  # how much happens after what a rule does
COMING_UP: Final = ("clearing", "starting", "priming", "settling")
MOST_STEPS: Final = 300  # far more than a calm world needs to come to rest
RARELY: Final = st.sampled_from([*[False] * 15, True])  # what ends a volume must not end every run


class VolumeLife(RuleBasedStateMachine):
    """Every ticket is answered exactly once, whatever happens; after the end nothing happens."""

    def __init__(self) -> None:
        super().__init__()
        self.tickets = itertools.count(1)
        self.publish()

    def publish(self) -> None:
        """Begin with a new volume."""
        self.asked: list[effects.Ticket] = []
        self.broken: set[effects.Ticket] = set()
        self.host = FakeHost(Volume(1, self.new_ticket()))
        self.volume = self.host.volume
        self.acknowledged = 1
        self.to_freeze = self.aborted = False
        self.host.carry_out(self.volume.begin())

    def new_ticket(self) -> effects.Ticket:
        """Return the ticket of a new request."""
        ticket = effects.Ticket(1, next(self.tickets))
        self.asked.append(ticket)
        return ticket

    @initialize(calm=CALM)
    def come_up(self, calm: int) -> None:
        """Let a while pass in which nothing breaks."""
        self.go_on(calm)

    @precondition(lambda self: self.volume.phase == "closed")
    @rule(calm=CALM)
    def publish_anew(self, calm: int) -> None:
        """Start over with another volume."""
        self.publish()
        self.come_up(calm)

    def go_on(self, steps: int) -> None:
        """Let the first thing happen that can, and so on."""
        for _ in range(steps):
            choices = self.host.choices()
            if choices:
                choices[0][1]()

    # Requests

    @precondition(lambda self: self.volume.newest - self.volume.acknowledged < 3)
    @rule(then=THEN, broken=st.sampled_from([False, False, False, True]))
    def rotate(self, then: int, *, broken: bool) -> None:
        """Hand in the next generation, also to a volume that has ended meanwhile."""
        previous, ticket = self.volume.newest, self.new_ticket()
        plan = BROKEN if broken else b"plan-%d" % ticket.request
        rotation = effects.Rotation(previous + 1, previous, plan, ticket)
        if broken:
            self.broken.add(ticket)
        self.host.kept.add(previous + 1)
        self.host.carry_out(self.volume.rotate(rotation))
        self.go_on(then)

    @rule()
    def publish_again(self) -> None:
        """Repeat the request to publish."""
        self.host.carry_out(self.volume.publish_again(self.new_ticket()))

    @rule(now=RARELY)
    def unpublish(self, *, now: bool) -> None:
        """Take the volume away."""
        if now:
            self.host.carry_out(self.volume.unpublish())

    @rule(now=RARELY, then=THEN)
    def freeze(self, then: int, *, now: bool) -> None:
        """Let the volume outlive its keeper; the request may come again."""
        if now:
            self.to_freeze = True
            self.host.carry_out(self.volume.freeze())
            self.go_on(then)

    # The world

    @precondition(lambda self: self.host.choices())
    @rule(picks=st.lists(st.integers(0, 5), min_size=1, max_size=5))
    def things_happen(self, picks: list[int]) -> None:
        """Let some of the things happen that can."""
        for pick in picks:
            choices = self.host.choices()
            if choices:
                choices[pick % len(choices)][1]()

    @precondition(lambda self: self.host.worker)
    @rule(lived_s=st.sampled_from([STEADY_S, 0.1, 0.0]), then=THEN)
    def worker_dies(self, lived_s: float, then: int) -> None:
        """End the worker, whatever it is doing."""
        self.host.kill_worker(lived_s)
        self.go_on(then)

    @precondition(lambda self: self.host.touches)
    @rule(then=THEN)
    def touch_child_fails(self, then: int) -> None:
        """End the touch child before or after its acknowledgement."""
        self.host.end_touch(None)
        self.go_on(then)

    @precondition(lambda self: self.host.touches and self.host.worker and self.host.worker.ready)
    @rule(then=THEN)
    def files_are_busy(self, then: int) -> None:
        """Let the touch child go on to its end, and find leases."""
        for _ in range(2):
            if self.host.touches:
                self.host.let_touch(busy=("a", "b"))
        self.go_on(then)

    @precondition(lambda self: self.host.priming)
    @rule(now=RARELY)
    def priming_fails(self, *, now: bool) -> None:
        """End the priming child with a failure."""
        if now:
            self.host.end_priming(succeeded=False)

    @precondition(lambda self: self.host.filling)
    @rule(then=THEN)
    def filling_fails(self, then: int) -> None:
        """End the child that fills the kernel's caches with a failure."""
        self.host.end_filling(succeeded=False)
        self.go_on(then)

    @precondition(lambda self: self.host.clearing)
    @rule(now=RARELY)
    def clearing_fails(self, *, now: bool) -> None:
        """End the child that empties the target with a failure."""
        if now:
            self.host.end_clearing(succeeded=False)

    @precondition(lambda self: self.host.worker)
    @rule(now=RARELY)
    def connection_is_aborted(self, *, now: bool) -> None:
        """Let somebody abort the FUSE connection; the worker ends with it."""
        if now:
            self.host.worker = None
            self.aborted = True
            self.host.carry_out(self.volume.connection_lost())

    @rule(fails_after=st.integers(0, 6), now=RARELY)
    def effect_will_fail(self, fails_after: int, *, now: bool) -> None:
        """Let one of the next effects fail: fatal while the volume comes up, harmless later."""
        if now or self.volume.phase not in COMING_UP:
            self.host.fails_after = fails_after
            self.go_on(fails_after)

    # What always holds

    @invariant()
    def phases_follow_the_diagram(self) -> None:
        """A phase is left for the one after it, or for the end."""
        for before, after in itertools.pairwise(self.host.phases):
            assert after in LEGAL[before] | {"closed"}

    @invariant()
    def no_ticket_is_answered_twice(self) -> None:
        """Every answer is to a request that was made, and the first to it."""
        counts = Counter(answer.ticket for answer in self.host.answers)
        assert set(counts) <= set(self.asked)
        assert max(counts.values(), default=0) <= 1

    @invariant()
    def acknowledgements_only_grow(self) -> None:
        """No generation is acknowledged after a newer one, nor before it is served."""
        assert self.acknowledged <= self.volume.acknowledged <= self.volume.served
        assert self.volume.served <= self.volume.newest
        self.acknowledged = self.volume.acknowledged

    @invariant()
    def what_is_needed_is_spared(self) -> None:
        """A successor finds everything it must start on."""
        spared = self.volume.spared()
        assert {self.volume.acknowledged, self.volume.served, self.volume.newest} <= spared
        if self.volume.rotation:
            assert self.volume.rotation.previous in spared
        assert self.host.torn_down or spared <= self.host.kept | self.host.discarded

    @invariant()
    def end_is_the_end(self) -> None:
        """A volume is closed exactly when it was torn down, and every request is answered then."""
        assert (self.volume.phase == "closed") is self.host.torn_down
        if self.host.torn_down:
            assert {answer.ticket for answer in self.host.answers} == set(self.asked)

    @invariant()
    def done_means_shown(self) -> None:
        """As long as the volume has not ended, a publish that is done has its target."""
        published = any(not answer.error for answer in self.host.answers)
        assert self.host.torn_down or not published or self.host.target == "shown"

    @invariant()
    def what_is_left_is_cached(self) -> None:
        """A target that nobody serves any more is whole in the kernel's caches, or aborted."""
        left = self.host.torn_down and self.host.target == "shown"
        assert not left or self.aborted or (self.to_freeze and self.host.cached)

    @override
    def teardown(self) -> None:
        """In a world where nothing breaks any more, everything comes to its end."""
        self.host.fails_after = None
        self.go_on(MOST_STEPS)
        self.no_ticket_is_answered_twice()
        assert not self.host.choices(), "the world does not come to rest"
        assert {answer.ticket for answer in self.host.answers} == set(self.asked)
        if self.volume.phase != "closed":
            assert not self.to_freeze
            assert self.volume.phase == "serving"
            assert self.volume.rotation is None
            worker = self.host.worker
            assert worker is not None
            assert (worker.generation, worker.plan) == (self.volume.acknowledged, None)
            assert self.volume.acknowledged == self.volume.newest
            refused = {answer.ticket for answer in self.host.answers if answer.error}
            assert self.broken <= refused
            assert self.broken or not refused


TestVolumeLife = VolumeLife.TestCase
# Runs are short and their interleavings many: as many as in CI, each shorter.
TestVolumeLife.settings = settings(max_examples=200, report_multiple_bugs=False)

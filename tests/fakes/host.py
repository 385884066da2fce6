"""A host without kernel: carries out what a volume's state machine asks for, in a small world.

The world has a target, workers, children and timers. Nothing in it moves by itself: `choices` lists
what may happen next, and the caller picks. A worker takes its messages in order, from what it was
forked with, and rejects what it cannot serve; a touch child gets through only where the worker has
its plan in progress, as the real handlers see to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from fusefs import effects

if TYPE_CHECKING:
    from fusefs.volume import Phase, Volume

Choice = tuple[str, Callable[[], None]]
STEADY_S: Final = 10.0
BROKEN: Final = b"broken"  # a plan that no worker can follow


class Refused(OSError):
    """An effect that the world did not allow."""


@attrs.define
class FakeWorker:
    """A worker: what it knows, what it has to say, and what it was told and has not read yet."""

    generation: int
    primed: bool
    plan: bytes | None = None
    ready: bool = False
    fossil: bool = False
    outcome: tuple[int, bool] | None = None
    inbox: list[effects.EndPriming | effects.SendSwap | effects.EndTouch | effects.Fossilize] = (
        attrs.field(factory=list)
    )

    def adopt(self, rotation: effects.Rotation) -> None:
        """Make a generation the current one, or leave everything as it is."""
        assert rotation.generation != self.generation, "told twice"
        fits = rotation.plan != BROKEN and rotation.previous == self.generation
        if fits:
            self.generation, self.plan = rotation.generation, rotation.plan
        self.outcome = (rotation.generation, fits)


@attrs.define
class FakeChild:
    """A touch child: which rotation it works on, and whether it got through."""

    rotation: effects.Rotation
    only: tuple[str, ...] | None
    acknowledged: bool = False


@attrs.define
class FakeFill:
    """A child that fills the kernel's caches, and the worker that it began with."""

    worker: FakeWorker | None


@attrs.define
class FakeHost:
    """One volume's host.

    Attributes:
        volume: The machine under test.
        fails_after: How many effects still succeed before one fails; None for all.
        kept: The generations held.
        discarded: Those that a worker rejected.
        answers: Every answer that was given, in order.
        phases: Every phase that the volume came to, in order.
        cached: Whether the kernel has all of the volume from a worker that gives out no handles.
    """

    volume: Volume
    fails_after: int | None = None
    target: str = "unknown"
    worker: FakeWorker | None = None
    clearing: int = 0
    priming: int = 0
    touches: list[FakeChild] = attrs.field(factory=list)
    filling: FakeFill | None = None
    cached: bool = False
    timers: list[effects.Effect] = attrs.field(factory=list)
    kept: set[int] = attrs.field(factory=lambda: {1})
    discarded: set[int] = attrs.field(factory=set)
    answers: list[effects.Answer] = attrs.field(factory=list)
    phases: list[Phase] = attrs.field(factory=list)
    torn_down: bool = False

    def carry_out(self, wanted: list[effects.Effect]) -> None:
        """Carry out what an event asked for: each effect, also after one that failed."""
        if self.phases[-1:] != [self.volume.phase]:
            self.phases.append(self.volume.phase)
        for effect in wanted:
            assert not self.torn_down or isinstance(effect, effects.Answer), effect
            try:
                self._may_fail(effect)
                self._carry_out_one(effect)
            except Refused as error:
                self.carry_out(self.volume.effect_failed(effect, error))

    def _may_fail(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.Answer | effects.RetryLater) or self.fails_after is None:
            return  # these two only note something
        sent = effects.SendSwap | effects.EndPriming | effects.Drain
        if isinstance(effect, sent) and self.worker is None:
            return  # nothing to send, nothing to fail
        self.fails_after -= 1
        if self.fails_after < 0:
            self.fails_after = None
            if isinstance(effect, effects.TearDown | effects.LetGo):
                self._tear_down(keep_target=isinstance(effect, effects.LetGo))
            message = f"{type(effect).__name__} is refused"
            raise Refused(message)

    def _carry_out_one(self, effect: effects.Effect) -> None:  # noqa: C901, PLR0912 - one case an effect
        match effect:
            case effects.ClearTarget():
                self.clearing += 1
            case effects.StartWorker(delay_s=0):
                self._start_worker()
            case effects.StartWorker() | effects.RetryLater():
                self.timers.append(effect)
            case effects.StartPriming():
                self.priming += 1
            case effects.Attach():
                assert self.worker is None or self.worker.primed, "the priming file shows"
                self.target = "shown"
                self.carry_out(self.volume.attached())
            case effects.StartTouch(rotation=rotation, only=only):
                assert not self.touches, "two touch children at a time"
                self.touches.append(FakeChild(rotation, only))
            case effects.Fill():
                assert self.filling is None, "two children that fill the caches"
                self.filling = FakeFill(self.worker)
            case effects.Drain():
                self.timers.append(effect)
            case effects.LetGo():
                self._tear_down(keep_target=True)
            case (
                effects.EndPriming() | effects.SendSwap() | effects.EndTouch() | effects.Fossilize()
            ):
                if self.worker is not None:
                    self.worker.inbox.append(effect)
            case effects.Discard(generation=generation):
                self.kept.remove(generation)
                self.discarded.add(generation)
            case effects.Answer():
                self.answers.append(effect)
            case effects.TearDown():
                self._tear_down()

    def _start_worker(self) -> None:
        assert self.worker is None, "two workers at a time"
        rotation, served = self.volume.rotation, self.volume.served
        assert served in self.kept
        settled = max(one for one in self.kept if one < served or (one == served and not rotation))
        self.worker = FakeWorker(settled, self.volume.primed)
        if rotation:
            self.worker.adopt(rotation)

    def _tear_down(self, *, keep_target: bool = False) -> None:
        assert not self.torn_down, "torn down twice"
        self.torn_down = True
        if not keep_target:
            self.target = "absent"
        self.worker = None
        self.filling = None
        self.clearing = self.priming = 0
        self.touches.clear()
        self.timers.clear()

    # What may happen

    def choices(self) -> list[Choice]:
        """Return what can happen next in a world where nothing breaks; empty when all is quiet."""
        found: list[Choice] = []
        if self.clearing:
            found.append(("target cleared", self.end_clearing))
        if self.worker and not self.worker.ready:
            found.append(("worker ready", self.make_ready))
        if self.worker and self.worker.ready and self.worker.outcome:
            found.append(("worker speaks", self.let_worker_speak))
        elif self.worker and self.worker.ready and self.worker.inbox:
            found.append(("worker reads", self.let_worker_read))
        if self.priming and self.worker and self.worker.ready:
            found.append(("primed", self.end_priming))
        if self.touches and self.worker and self.worker.ready:
            found.append(("touch", self.let_touch))
        if self.filling and self.worker and self.worker.ready:
            found.append(("caches filled", self.end_filling))
        found.extend(
            (f"timer {number}", lambda number=number: self.fire(number))  # type: ignore[misc]
            for number in range(len(self.timers))
        )
        return found

    def end_clearing(self, *, succeeded: bool = True) -> None:
        """End the child that empties the target."""
        self.clearing -= 1
        if succeeded:
            self.target = "empty"
            self.carry_out(self.volume.target_cleared())
        else:
            self.carry_out(self.volume.effect_failed(effects.ClearTarget(), Refused("it is full")))

    def make_ready(self) -> None:
        """Let the worker answer the kernel."""
        assert self.worker is not None
        self.worker.ready = True
        self.carry_out(self.volume.worker_ready())

    def let_worker_read(self) -> None:
        """Let the worker follow the first message that it has not read."""
        assert self.worker is not None
        match self.worker.inbox.pop(0):
            case effects.EndPriming():
                self.worker.primed = True
                self.carry_out(self.volume.priming_ended())
            case effects.SendSwap(rotation=rotation):
                self.worker.adopt(rotation)
            case effects.EndTouch(finished=finished):
                self.worker.plan = None if finished else self.worker.plan
            case effects.Fossilize():
                self.worker.fossil = True
                self.carry_out(self.volume.worker_freezes())

    def let_worker_speak(self) -> None:
        """Let the worker say what became of the generation it was told of."""
        assert self.worker is not None
        assert self.worker.outcome is not None
        (generation, fits), self.worker.outcome = self.worker.outcome, None
        if fits:
            self.carry_out(self.volume.swapped(generation))
        else:
            self.carry_out(self.volume.rejected(generation, "it is broken"))

    def kill_worker(self, lived_s: float) -> None:
        """End the worker; what it had not read is lost, what it had said is heard."""
        assert self.worker is not None
        if self.worker.ready and self.worker.outcome:
            self.let_worker_speak()
        self.worker = None
        self.carry_out(self.volume.worker_died(lived_s=lived_s))

    def end_priming(self, *, succeeded: bool = True) -> None:
        """End the priming child."""
        self.priming -= 1
        self.carry_out(self.volume.primed_by_child(succeeded=succeeded))

    def let_touch(self, busy: tuple[str, ...] = ()) -> None:
        """Let the touch child go on: to its acknowledgement, or to its end."""
        child = self.touches[0]
        assert self.worker is not None
        if child.only is None and not child.acknowledged:
            if self.worker.plan != child.rotation.plan:
                self.end_touch(None)
                return
            child.acknowledged = True
            self.carry_out(self.volume.touch_acknowledged())
        else:
            self.end_touch(busy)

    def end_touch(self, busy: tuple[str, ...] | None) -> None:
        """End the touch child; None when it failed."""
        self.touches.pop(0)
        self.carry_out(self.volume.touch_ended(busy=busy))

    def end_filling(self, *, succeeded: bool = True) -> None:
        """End the child that fills the caches; what counts is read from one fossil."""
        child, self.filling = self.filling, None
        assert child is not None
        whole = child.worker is not None and child.worker is self.worker and child.worker.fossil
        self.cached = self.cached or (succeeded and whole)
        self.carry_out(self.volume.filled(succeeded=succeeded))

    def fire(self, number: int) -> None:
        """Let a timer come due."""
        match self.timers.pop(number):
            case effects.StartWorker():
                self.carry_out([effects.StartWorker()])
            case effects.Drain():
                self.carry_out(self.volume.drained())
            case _:
                self.carry_out(self.volume.retry())

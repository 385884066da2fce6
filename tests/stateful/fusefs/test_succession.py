"""Workers live, hang and die in any order, in virtual time: there is always one that serves."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from fakes.succession import KILLED, Worker, World
from fusefs import protocol
from fusefs.succession import READY_DEADLINE_S, REAP_S, STOP_S
from fusefs.worker import EXIT_STOPPED

REPLACED_S = 5.0


class Successions(RuleBasedStateMachine):
    """A volume that wants a worker whenever it has none."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.world = World(self.patch)
        self.ready: set[int] = set()
        self.hangs_since: dict[int, float] = {}
        self.stopping: list[bool] | None = None
        self.stopped_at = 0.0
        self.world.succession.start()

    @property
    def current(self) -> Worker | None:
        """The worker that the keeper counts on."""
        pid = self.world.succession.pid
        return next((one for one in self.world.workers if one.pid == pid), None)

    def watched(self) -> list[Worker]:
        """Return the workers that nobody has killed, and that have not ended."""
        return [one for one in self.world.workers if not (one.killed or one.over)]

    # What workers do

    @precondition(lambda self: self.current and self.current.pid not in self.ready)
    @rule()
    def worker_comes_up(self) -> None:
        """Let it serve, if it still can."""
        worker = self.current
        assert worker is not None
        if worker.alive and not worker.over:
            self.ready.add(worker.pid)
            worker.say(protocol.Ready(b""))

    @precondition(lambda self: self.current)
    @rule(mortal=st.booleans())
    def worker_hangs(self, *, mortal: bool) -> None:
        """Let it answer no more; where it is stuck in the kernel, no signal reaches it either."""
        worker = self.current
        assert worker is not None
        worker.alive = False
        worker.mortal = mortal
        self.hangs_since.setdefault(worker.pid, self.world.loop.now())

    @precondition(lambda self: self.current)
    @rule(code=st.sampled_from([-11, 0, 1, 3]))
    def worker_ends(self, code: int) -> None:
        """Let it end by itself."""
        assert self.current is not None
        self.current.end(code)

    @rule()
    def stuck_workers_come_free(self) -> None:
        """Let those end that have been killed."""
        for worker in self.world.workers:
            worker.mortal = True
            if worker.killed:
                worker.end(KILLED)

    # What the keeper does

    @rule(seconds=st.floats(0.0, 12.0))
    def time_passes(self, seconds: float) -> None:
        """Let time pass."""
        self.world.loop.advance(seconds)

    @rule(seconds=st.floats(2.0, 1e5))
    def keeper_stands_still(self, seconds: float) -> None:
        """Stop the keeper for a while; it must not blame those that answer."""
        answering = [one for one in self.watched() if one.alive and one.pid in self.ready]
        self.world.loop.stand_still(seconds)
        self.stopped_at = self.world.loop.now()
        self.hangs_since = dict.fromkeys(self.hangs_since, self.world.loop.now())
        if self.stopping is None:
            assert not [one for one in answering if one.killed]

    @rule()
    def replacement_is_asked_for(self) -> None:
        """Want another worker."""
        self.world.succession.replace()

    @precondition(lambda self: self.stopping is None)
    @rule(obeys=st.booleans())
    def handover_begins(self, *, obeys: bool) -> None:
        """Let the worker make room."""
        self.stopping = []
        self.stopped_at = self.world.loop.now()
        worker = self.current
        self.world.succession.stop(self.stopping.append)
        if obeys and worker is not None and worker.alive and worker.pid in self.ready:
            worker.end(EXIT_STOPPED)
            assert self.stopping == [True]

    @precondition(lambda self: self.stopping)
    @rule()
    def handover_is_rolled_back(self) -> None:
        """Take the volume back."""
        self.stopping = None
        self.world.succession.resume()
        self.world.succession.start()

    @rule()
    def retry_comes_late(self) -> None:
        """Let a timer ask for a worker that is not needed any more."""
        self.world.succession.start()

    # What must hold

    @invariant()
    def one_worker_at_most_serves(self) -> None:
        """Whoever is not counted on any more has been killed or has ended."""
        assert len(self.watched()) <= 1
        if self.current is not None:
            assert not self.current.over

    @invariant()
    def there_is_a_worker(self) -> None:
        """Unless the volume is being handed over, somebody serves or comes up."""
        assert self.stopping is not None or self.current is not None

    @invariant()
    def no_worker_hangs_for_long(self) -> None:
        """One that served is replaced within five seconds, one that came up a little later."""
        worker = self.current
        if worker is None or self.stopping is not None or worker.pid not in self.hangs_since:
            return
        most = REPLACED_S if worker.pid in self.ready else READY_DEADLINE_S + REAP_S
        assert self.world.loop.now() - self.hangs_since[worker.pid] <= most + 1e-6

    @invariant()
    def handover_is_over_in_time(self) -> None:
        """Whoever waits for the worker to make room hears of it once, and soon."""
        if self.stopping is not None:
            assert len(self.stopping) <= 1
            late = self.world.loop.now() - self.stopped_at > STOP_S + REAP_S + 1e-6
            assert self.stopping or not late

    @override
    def teardown(self) -> None:
        """End the volume: its uid is free when the last process is gone, and not before."""
        gone: list[bool] = []
        self.world.restarting = False
        self.world.succession.abandon(lambda: gone.append(True))
        assert bool(gone) == all(one.over for one in self.world.workers)
        self.stuck_workers_come_free()
        assert gone == [True]
        assert all(one.over for one in self.world.workers)
        self.patch.undo()


TestSuccessions = Successions.TestCase
TestSuccessions.settings = settings(max_examples=200, stateful_step_count=40)

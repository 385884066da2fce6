"""The life cycle of volumes with the n-th effect failing.

Calls of kubelet, time, deaths of the keeper and restarts of the node server come in any order; the
n-th call to the keeper fails before or after its effect, as a refusal, a defect or a lost
connection. Three accounts must agree: what kubelet was told is published, what the keeper serves,
and what the registry records.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import attrs
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from typing_extensions import override

from csi.errors import CsiError, ProviderFailed
from csi.records import Credentials
from fakes.keeper import FakeKeeper
from fakes.kubelet import publish_request, unpublish_request, volume_of
from fakes.nodeserver import World, world
from fakes.sources import FakeProviders
from fakes.steppedloop import SteppedLoop
from fusefs.errors import FusefsError, VolumeFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from csi.records import MountCall
    from fakes.keeper import Moment

PODS: Final = ("a", "b", "c")
SOME_POD: Final = st.sampled_from(PODS)
# Longer than any back-off of the link, of a restore and of a refresh.
SETTLE_S: Final = 800.0

Kind = Literal["refusal", "defect", "lost connection"]


class Defect(Exception):
    """An exception that nobody expects."""


@attrs.frozen
class Fault:
    """The n-th call to the keeper from now on fails, at a moment, in some way."""

    calls_left: int
    moment: Moment
    kind: Kind


def _fault(calls: int, moment: Moment, kind: Kind) -> Fault:
    # A refusal has no effect by its meaning, so it comes before.
    return Fault(calls, "before" if kind == "refusal" else moment, kind)


FAULTS: Final = st.builds(
    _fault,
    st.integers(0, 2),
    st.sampled_from(["before", "after"]),
    st.sampled_from(["refusal", "defect", "lost connection"]),
)
MAYBE_A_FAULT: Final = st.none() | FAULTS


class LifecycleMachine(RuleBasedStateMachine):
    """Volumes of three pods; `published` is what kubelet was told."""

    def __init__(self) -> None:
        """Start a node server over a keeper that outlives it."""
        super().__init__()
        self.loop = SteppedLoop()
        self.keeper = FakeKeeper()
        self.keeper.hook = self._maybe_fail
        self.providers = FakeProviders()
        self.fault: Fault | None = None
        self.tokens = 0
        self.published: set[str] = set()
        self.unknown: set[str] = set()  # a call failed: kubelet will ask again
        self.may_remain: set[str] = set()  # and the one who knew that it failed is gone
        self._start()

    # What happens

    @rule(pod=SOME_POD, fault=MAYBE_A_FAULT)
    def publish(self, pod: str, fault: Fault | None) -> None:
        """Kubelet publishes, or republishes: which never fails."""
        self.fault = fault or self.fault
        error = self._call(self._publish(pod))
        if error is None:
            self.published.add(pod)
            self.unknown.discard(pod)
            self.may_remain.discard(pod)
        else:
            assert pod not in self.published, error
            self.unknown.add(pod)

    @rule(pod=SOME_POD, fault=MAYBE_A_FAULT)
    def unpublish(self, pod: str, fault: Fault | None) -> None:
        """Kubelet unpublishes; after success nothing is there."""
        self.fault = fault or self.fault
        error = self._call(self._unpublish(pod))
        self.published.discard(pod)
        if error is None:
            self.unknown.discard(pod)
            self.may_remain.discard(pod)
            assert volume_of(pod) not in self.keeper.kept
        else:
            self.unknown.add(pod)

    @rule(seconds=st.sampled_from([0.1, 5.0, 130.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.loop.run(partial(trio.sleep, seconds))

    @rule(name=st.sampled_from(["password", "key", "dir/cert"]))
    def change_vault(self, name: str) -> None:
        """A secret gets a new version, or appears."""
        self.providers.rotate(**{name: self.providers.version.encode()})

    @rule(works=st.booleans())
    def provider_changes(self, works: bool) -> None:  # noqa: FBT001 - drawn by name
        """The vault goes away for a while, or comes back."""
        self.providers.hook = None if works else _fail

    @rule(fault=FAULTS)
    def arm(self, fault: Fault) -> None:
        """Let a call fail that comes later: of kubelet, a refresh or a recovery."""
        self.fault = fault

    @rule()
    def kill_keeper(self) -> None:
        """The keeper dies with every mount, and is restarted by its supervisor."""
        self.keeper.kill()

    @rule()
    def restart_node_server(self) -> None:
        """The node server is killed; what no keeper holds is then known to kubelet only."""
        self._stop()
        lost = {pod for pod in self.published if volume_of(pod) not in self.keeper.kept}
        self.published -= lost
        self.unknown |= lost
        self.may_remain |= self.unknown  # resumed like any other: kubelet decides
        self._start()

    @rule()
    def settle(self) -> None:
        """Without further faults and with kubelet's republishes, all accounts agree."""
        self.fault = None
        self.providers.hook = None
        for pod in sorted(self.published):
            self.loop.run(self._publish(pod))
        self.loop.run(partial(trio.sleep, SETTLE_S))
        shown = {volume.volume_id for volume in self.here.core.registry if volume.shown}
        recorded = {volume.volume_id for volume in self.here.core.registry}
        assert {volume_of(pod) for pod in self.published} <= shown
        assert shown <= self.keeper.kept.keys() <= recorded
        assert recorded <= {volume_of(pod) for pod in self.published | self.may_remain}
        for pod in self.published:
            assert self.keeper.shown(volume_of(pod)) == self.providers.files

    # What always holds

    @invariant()
    def state_is_consistent(self) -> None:
        """Registry and schedule keep their own invariants, and only shown volumes are refreshed."""
        self.here.check()
        for volume in self.here.core.registry:
            assert volume.shown or volume.volume_id not in self.here.core.schedule

    @invariant()
    def nothing_is_served_that_kubelet_does_not_know(self) -> None:
        """What a publish left behind is at most what kubelet will ask about again."""
        known = {volume_of(pod) for pod in self.published | self.unknown}
        assert self.keeper.kept.keys() <= known

    @override
    def teardown(self) -> None:
        """In the end kubelet unpublishes everything, and nothing is left."""
        try:
            self.fault = None
            self.loop.run(partial(trio.sleep, 5))
            for pod in PODS:
                self.loop.run(self._unpublish(pod))
            assert self.keeper.kept == {}
            assert list(self.here.core.registry) == []
        finally:
            self.loop.close()

    # Means

    def _start(self) -> None:
        self.here = self.loop.run(self._enter)

    async def _enter(self) -> World:
        here: World = await self.loop.nursery.start(self._live)
        return here

    async def _live(self, task_status: trio.TaskStatus[World]) -> None:
        self._scope = trio.CancelScope()
        with self._scope:
            async with world(self.keeper, self.providers) as here:
                await here.core.link.session()
                task_status.started(here)
                await trio.sleep_forever()
        self._stopped.set()

    def _stop(self) -> None:
        self._stopped = trio.Event()
        self._scope.cancel()
        self.loop.run(self._stopped.wait)

    def _publish(self, pod: str) -> Callable[[], Awaitable[object]]:
        """Return a publish with credentials that nobody has seen, as kubelet sends it."""
        self.tokens += 1
        credentials = Credentials(tokens=f"token {self.tokens}")
        return partial(self.here.core.node.publish, publish_request(pod, credentials=credentials))

    def _unpublish(self, pod: str) -> Callable[[], Awaitable[object]]:
        return partial(self.here.core.node.unpublish, unpublish_request(pod))

    def _call(self, call: Callable[[], Awaitable[object]]) -> Exception | None:
        try:
            self.loop.run(call)
        except (CsiError, FusefsError, Defect) as error:
            return error
        return None

    async def _maybe_fail(self, _: str, moment: Moment) -> None:
        fault = self.fault
        if fault is None or fault.moment != moment:
            return
        if fault.calls_left:
            self.fault = attrs.evolve(fault, calls_left=fault.calls_left - 1)
            return
        self.fault = None
        match fault.kind:
            case "refusal":
                message = "refused"
                raise VolumeFailed(message)
            case "defect":
                raise Defect
            case "lost connection":
                self.keeper.disconnect()


async def _fail(_: MountCall) -> None:
    code = "UNAVAILABLE"
    raise ProviderFailed(code, "the vault is out")


TestLifecycle = LifecycleMachine.TestCase
# Most faults are only reached by a few steps in one order; a step costs well under a millisecond.
TestLifecycle.settings = settings(max_examples=4 * settings().max_examples)

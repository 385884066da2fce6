"""Keeps the SecretProviderClassPodStatuses of this node's volumes as they should be.

Writes happen beside publishes and refreshes, which only note that something may have changed. A
publish then waits a little, so that usually the status is there before the pod starts; but no
volume fails because its status cannot be written. What could not be written is tried again with
growing delays; what is unchanged is not written at all.
"""

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import attrs
import trio

from csi import logkeys
from csi.errors import ApiConflict, ApiNotFound, ApiUnavailable, CsiError
from csi.podstatus import PodStatus, StatusKey, desired_status, key_of, merged, new_document
from csi.records import ObjectVersion, VolumeSpec

log = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 600.0
_MAX_DOUBLINGS: Final = 20
_MAX_WRITES: Final = 4
_PATIENCE_S: Final = 5.0
_CONFLICTS: Final = 5  # in a row; beyond that somebody else writes all the time

Shown = tuple[VolumeSpec, tuple[ObjectVersion, ...]]


class StatusApi(Protocol):
    """What of the Kubernetes API is needed here."""

    async def get_status(self, namespace: str, name: str) -> dict[str, Any]:
        """Return an object."""
        ...

    async def create_status(self, namespace: str, document: Mapping[str, Any]) -> None:
        """Create an object; `ApiConflict` if there is one."""
        ...

    async def replace_status(self, namespace: str, name: str, document: Mapping[str, Any]) -> None:
        """Replace an object; `ApiConflict` if it was changed meanwhile."""
        ...


@attrs.define(kw_only=True)
class _Pending:
    """An object to look at.

    Attributes:
        due: When.
        failures: How many attempts failed in a row.
        busy: An attempt is under way.
        again: Something changed meanwhile.
    """

    due: float
    failures: int = 0
    busy: bool = False
    again: bool = False


class StatusWriter:
    """Writes what changed."""

    def __init__(
        self, api: StatusApi, *, node_id: str, shown: Callable[[], Iterable[Shown]]
    ) -> None:
        """Write when `run`.

        Args:
            api: Where the objects are.
            node_id: The name of this node.
            shown: Returns all volumes that pods see, with their object versions.
        """
        self._api = api
        self._node_id = node_id
        self._shown = shown
        self._written: dict[StatusKey, PodStatus] = {}
        self._pending: dict[StatusKey, _Pending] = {}
        self._changed = trio.Event()

    def note(self, spec: VolumeSpec) -> None:
        """Note that a volume may show something else, or nothing any more."""
        key = key_of(spec)
        if key is None:
            return
        pending = self._pending.get(key)
        if pending is not None:
            pending.again = True  # a failing one keeps its delay
        elif self._desired(key) != self._written.get(key):
            self._pending[key] = _Pending(due=trio.current_time())
            self._wake()

    async def settled(self, spec: VolumeSpec) -> None:
        """Return when what was noted of a volume is written, or has failed, or takes too long."""
        key = key_of(spec)
        with trio.move_on_after(_PATIENCE_S):
            while key in self._pending and not self._pending[key].failures:
                await self._changed.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        limit = trio.CapacityLimiter(_MAX_WRITES)
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._changed
                waiting = [each.due for each in self._pending.values() if not each.busy]
                with trio.move_on_at(min(waiting, default=float("inf"))):
                    await changed.wait()
                now = trio.current_time()
                for key, pending in self._pending.items():
                    if not pending.busy and pending.due <= now:
                        pending.busy = True
                        nursery.start_soon(self._attempt, key, pending, limit)

    async def _attempt(
        self, key: StatusKey, pending: _Pending, limit: trio.CapacityLimiter
    ) -> None:
        try:
            async with limit:
                pending.again = False
                await self._write(key)
        except CsiError as error:
            self._failed(key, pending, error)
        except Exception as error:
            # The other objects, and the node server with them, must live.
            log.exception("defect in writing a pod status", extra={logkeys.OBJECT: key.name})
            self._failed(key, pending, error)
        else:
            pending.failures = 0
            pending.due = trio.current_time()
            if not pending.again:
                del self._pending[key]
        pending.busy = False
        self._wake()

    async def _write(self, key: StatusKey) -> None:
        desired = self._desired(key)
        if desired is None:
            self._written.pop(key, None)  # the API server removes it with the pod
        elif desired != self._written.get(key):
            await self._bring_about(desired)
            self._written[key] = desired

    async def _bring_about(self, desired: PodStatus) -> None:
        exists = desired.key in self._written
        for _ in range(_CONFLICTS):
            try:
                if exists:
                    await self._replace(desired)
                else:
                    await self._api.create_status(desired.key.namespace, new_document(desired))
            except ApiConflict:
                exists = True  # of a node server before this one, or changed since it was read
            except ApiNotFound:
                if not exists:
                    raise  # the kind, or the namespace
                exists = False  # deleted by somebody
            else:
                return
        message = f"{desired.key.name} is changed by somebody else all the time"
        raise ApiConflict(message)

    async def _replace(self, desired: PodStatus) -> None:
        namespace, name = desired.key.namespace, desired.key.name
        existing = await self._api.get_status(namespace, name)
        wanted = merged(existing, desired)
        if wanted != existing:
            await self._api.replace_status(namespace, name, wanted)

    def _failed(self, key: StatusKey, pending: _Pending, error: Exception) -> None:
        pending.failures += 1
        delay = min(_FIRST_RETRY_S * 2 ** min(pending.failures, _MAX_DOUBLINGS), _LAST_RETRY_S)
        if isinstance(error, ApiUnavailable):
            delay = max(delay, error.retry_after)
        pending.due = trio.current_time() + delay * random.uniform(0.5, 1.0)  # noqa: S311
        log.log(
            logging.WARNING if pending.failures == 1 else logging.DEBUG,
            "the status of a pod cannot be written; trying again, the volume is not affected",
            extra={logkeys.OBJECT: key.name, logkeys.ERROR: str(error), logkeys.SECONDS: delay},
        )

    def _desired(self, key: StatusKey) -> PodStatus | None:
        return desired_status(key, self._shown(), node_id=self._node_id)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

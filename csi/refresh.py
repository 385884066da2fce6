"""The refresh loop: asks providers again when the schedule says so, and keeps what is good.

One task waits for the next due time; each refresh is a task of its own under the lock of its
volume. A failure is logged, louder with each in a row, and answered with a later attempt; what the
pod reads stays as it is. There is no refresh without a keeper to give it to, and none after another
node server has taken over.
"""

import logging
from typing import Final

import trio

from csi import logkeys
from csi.delivery import Delivery
from csi.errors import CsiError
from csi.keeper import KeeperLink
from csi.locks import VolumeLocks
from csi.metrics import Metrics
from csi.records import VolumeId
from csi.schedule import Schedule
from csi.volumes import Registry, Volume
from fusefs.errors import FusefsError, Superseded

log = logging.getLogger(__name__)

# More at once would only wait for each other in the provider.
_MAX_REFRESHES: Final = 32
_LOUD_FAILURES: Final = 3


class Refresher:
    """Refreshes volumes, in its own time and on request."""

    def __init__(
        self,
        *,
        link: KeeperLink,
        registry: Registry,
        schedule: Schedule,
        locks: VolumeLocks,
        delivery: Delivery,
        metrics: Metrics,
        initial_interval: float | None,
        class_spread: float,
    ) -> None:
        """Act with what others own too.

        Args:
            link: The keeper.
            registry: The volumes.
            schedule: When they are due.
            locks: Their locks.
            delivery: How a refresh is done.
            metrics: Where it is counted.
            initial_interval: Seconds between the attempts to refresh a resumed volume, of which
                only the first refresh tells what its class says; None switches refreshes off.
            class_spread: Seconds within which the volumes of an edited class are refreshed.
        """
        self._link = link
        self._registry = registry
        self._schedule = schedule
        self._locks = locks
        self._delivery = delivery
        self._metrics = metrics
        self._initial_interval = initial_interval
        self._class_spread = class_spread
        self._limit = trio.CapacityLimiter(_MAX_REFRESHES)
        self._changed = trio.Event()

    async def run(self) -> None:
        """Refresh what is due until another node server has taken over."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    await self._link.next_session()
                except Superseded:
                    nursery.cancel_scope.cancel()
                    return  # noqa: ASYNC121 - the other tasks were cancelled just now
                changed = self._changed
                with trio.move_on_at(self._schedule.next_due()):
                    await changed.wait()
                if self._link.connected:
                    for volume_id in self._schedule.take_due(trio.current_time()):
                        nursery.start_soon(self._refresh_taken, volume_id)

    def is_due(self, volume_id: VolumeId, now: float) -> bool:
        """Return whether a refresh is due that the loop has not begun yet."""
        return self._schedule.is_due(volume_id, now)

    def renewed(self, volume: Volume) -> None:
        """Let a volume with new credentials try at once, if it failed or never could before."""
        if self._initial_interval is None:
            return
        now = trio.current_time()
        if volume.volume_id not in self._schedule:
            self._schedule.add(volume.volume_id, volume.volume_id, self._initial_interval, now)
            self._schedule.hasten(volume.volume_id, now)
        elif self._schedule.is_failing(volume.volume_id):
            self._schedule.hasten(volume.volume_id, now)
        self.reconsider()

    def class_changed(self, namespace: str, name: str) -> None:
        """Refresh the volumes of a class, whose content has changed.

        Every node of the cluster hears of it at the same moment, so each takes its time.
        """
        volumes = [
            volume.volume_id
            for volume in self._registry
            if (volume.spec.namespace, volume.spec.class_name) == (namespace, name)
        ]
        self._schedule.outdate(volumes, trio.current_time(), spread=self._class_spread)
        self.reconsider()

    def reconsider(self) -> None:
        """Look at the schedule again: it has changed."""
        self._changed.set()
        self._changed = trio.Event()

    async def refresh(self, volume_id: VolumeId) -> None:
        """Refresh a volume now. Never fails: a failure is noted and tried again later."""
        self._schedule.start(volume_id, trio.current_time())
        await self._refresh_taken(volume_id)

    async def _refresh_taken(self, volume_id: VolumeId) -> None:
        try:
            async with self._limit, self._locks.hold_interruptibly(volume_id):
                volume = self._registry.shown(volume_id)
                if volume is None:  # unpublished since it was due
                    self._schedule.remove(volume_id)
                else:
                    await self._refresh_counted(volume)
        except (CsiError, FusefsError) as error:
            self._failed(volume_id, error)
        except Exception as error:
            # The loop must live, and with it every other volume.
            log.exception("defect in a refresh", extra={logkeys.VOLUME_ID: volume_id})
            self._failed(volume_id, error)
        except trio.Cancelled:
            # A caller who went away; to the schedule it is a failure like any other.
            self._schedule.failed(volume_id, trio.current_time())
            self.reconsider()
            raise
        else:
            self._schedule.ended(volume_id)
            self.reconsider()

    async def _refresh_counted(self, volume: Volume) -> None:
        began = trio.current_time()
        try:
            done = await self._delivery.refresh(await self._link.session(), volume)
        except Exception as error:
            self._metrics.refresh_failed(error, seconds=trio.current_time() - began)
            raise
        seconds = trio.current_time() - began
        self._metrics.refreshed(done.provider, rotated=done.rotated, seconds=seconds)

    def _failed(self, volume_id: VolumeId, error: Exception) -> None:
        failures = self._schedule.failed(volume_id, trio.current_time())
        self.reconsider()
        log.log(
            logging.ERROR if failures >= _LOUD_FAILURES else logging.WARNING,
            "refresh failed; the last good content stays",
            extra={
                logkeys.VOLUME_ID: volume_id,
                logkeys.FAILURES: failures,
                logkeys.ERROR: str(error),
            },
        )

"""What happens when a session with a keeper starts: the registry and the keeper come together.

* The keeper serves what we do not know: this process is new. The volumes are resumed from their
  records; the next republish brings their credentials.
* We know what the keeper does not serve: the keeper is new, and the mounts died with the old one.
  The volumes are published again from the content in memory.
* The keeper serves what nobody wants: an unpublish or a failed publish did not get through. It is
  taken away.
"""

import logging
from collections.abc import Sequence
from typing import Final

import trio

from csi import logkeys
from csi.delivery import Delivery
from csi.errors import CsiError
from csi.keeper import Keeper, KeeperLink
from csi.locks import VolumeLocks
from csi.records import VolumeId
from csi.refresh import Refresher
from csi.volumes import Registry, State
from fusefs.client import PublishedVolume
from fusefs.errors import FusefsError

log = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 60.0


class Recovery:
    """Acts on what each new session finds."""

    def __init__(
        self,
        *,
        link: KeeperLink,
        registry: Registry,
        locks: VolumeLocks,
        delivery: Delivery,
        refresher: Refresher,
    ) -> None:
        """Act with what others own too."""
        self._link = link
        self._registry = registry
        self._locks = locks
        self._delivery = delivery
        self._refresher = refresher

    async def run(self) -> None:
        """Keep a session, and recover volumes whenever a new one starts."""
        async with trio.open_nursery() as nursery:

            def on_connected(keeper: Keeper, published: Sequence[PublishedVolume]) -> None:
                found = self._registry.reconcile(published)
                if found.resumed or found.lost or found.unwanted:
                    log.warning(
                        "volumes of before: %d resumed, %d to publish again, %d to take away",
                        len(found.resumed),
                        len(found.lost),
                        len(found.unwanted),
                    )
                for volume_id in found.lost:
                    nursery.start_soon(self._restore, keeper, volume_id)
                for volume_id in found.unwanted:
                    nursery.start_soon(self._take_away, keeper, volume_id)
                self._refresher.reconsider()

            await self._link.run(on_connected)
            nursery.cancel_scope.cancel()

    async def _restore(self, keeper: Keeper, volume_id: VolumeId) -> None:
        """Publish a volume again; a refusal is tried again as long as this session lasts."""
        delay = _FIRST_RETRY_S
        while True:
            try:
                async with self._locks.hold_interruptibly(volume_id):
                    volume = self._registry.shown(volume_id)
                    if volume is not None and volume.state is State.LOST:
                        await self._delivery.restore(keeper, volume)
            except (CsiError, FusefsError) as error:
                log.error(  # noqa: TRY400 - the node's state, not a defect
                    "a volume cannot be published again",
                    extra={logkeys.VOLUME_ID: volume_id, logkeys.ERROR: str(error)},
                )
            volume = self._registry.shown(volume_id)
            if (
                volume is None
                or volume.state is not State.LOST
                or not self._link.is_current(keeper)
            ):
                return
            await trio.sleep(delay)
            delay = min(delay * 2, _LAST_RETRY_S)

    async def _take_away(self, keeper: Keeper, volume_id: VolumeId) -> None:
        try:
            async with self._locks.hold(volume_id):
                volume = self._registry.get(volume_id)
                if volume is not None and volume.state is State.UNWANTED:
                    await self._delivery.remove(keeper, volume_id, volume.spec.target)
        except FusefsError as error:
            log.error(  # noqa: TRY400 - the node's state, not a defect
                "a volume cannot be taken away; kubelet asks again",
                extra={logkeys.VOLUME_ID: volume_id, logkeys.ERROR: str(error)},
            )

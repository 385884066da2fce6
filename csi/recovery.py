"""Registry and keeper come together: when a session starts, and until they agree.

* The keeper serves what we do not know: this process is new. The volumes are resumed from their
  records; the next republish brings their credentials.
* We know what the keeper does not serve, although all that was held was given back to it: the mount
  is dead, or the volume a tmpfs. It is published again from the content in memory.
* The keeper serves what nobody wants: an unpublish or a failed publish did not get through. It is
  taken away.

What cannot be mended at once is tried again, with growing delays.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from fusefs.errors import FusefsError, Superseded
from fusefs.published import PublishedVolume

log = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 30.0
_BROKEN: Final = (State.LOST, State.UNWANTED)


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
        self._found = trio.Event()

    async def run(self) -> None:
        """Keep a session, and mend what is lost or unwanted, until superseded."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._mend_all)
            await self._link.run(self._on_connected)
            nursery.cancel_scope.cancel()

    def _on_connected(self, _: Keeper, published: Sequence[PublishedVolume]) -> None:
        found = self._registry.reconcile(published)
        if found.resumed or found.lost or found.unwanted:
            log.warning(
                "volumes of before: %d resumed, %d to publish again, %d to take away",
                len(found.resumed),
                len(found.lost),
                len(found.unwanted),
            )
        self._found.set()
        self._found = trio.Event()
        self._refresher.reconsider()

    async def _mend_all(self) -> None:
        """Mend at each new session, and again as long as something is left to mend.

        Volumes become unwanted between sessions too, when the keeper refuses to take one away.
        """
        delay = _FIRST_RETRY_S
        while True:
            found = self._found
            try:
                keeper = await self._link.next_session()
            except Superseded:
                return
            async with trio.open_nursery() as nursery:
                for volume in self._registry:
                    # A volume whose lock is taken is being dealt with.
                    if volume.state in _BROKEN and not self._locks.busy(volume.volume_id):
                        nursery.start_soon(self._mend, keeper, volume.volume_id)
            left = any(volume.state in _BROKEN for volume in self._registry)
            delay = min(delay * 2, _LAST_RETRY_S) if left else _LAST_RETRY_S
            with trio.move_on_after(delay):
                await found.wait()
                delay = _FIRST_RETRY_S

    async def _mend(self, keeper: Keeper, volume_id: VolumeId) -> None:
        with _logged(volume_id):
            async with self._locks.hold_interruptibly(volume_id):
                volume = self._registry.get(volume_id)
                if volume is not None and volume.state is State.LOST:
                    await self._delivery.restore(keeper, volume)
                elif volume is not None and volume.state is State.UNWANTED:
                    await self._delivery.remove(keeper, volume_id, volume.spec.target)


@contextmanager
def _logged(volume_id: VolumeId) -> Iterator[None]:
    """Log what goes wrong with one volume: the others, and the session, must live."""
    problem = "a volume could not be published again or taken away; trying again"
    fields: dict[str, object] = {logkeys.VOLUME_ID: volume_id}
    try:
        yield
    except (CsiError, FusefsError) as error:
        log.error(  # noqa: TRY400 - the node's state, not a defect
            problem, extra=fields | {logkeys.ERROR: str(error)}
        )
    except Exception:
        log.exception(problem, extra=fields)

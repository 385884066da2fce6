"""The Node service: publish, republish, unpublish. Records in, records out.

* A publish of a volume that is not shown fetches its content, and only then is anything done at the
  target. It fails with nothing left there.
* A publish of a volume that is shown is a *republish*, which kubelet sends about once a minute. It
  brings fresh credentials, never touches the mount and never fails: an older kubelet answers an
  error with the removal of a mount that a pod uses.
* An unpublish always converges, whatever is known of the volume.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from csi import logkeys
from csi.delivery import Delivery
from csi.keeper import KeeperLink
from csi.locks import VolumeLocks
from csi.records import PublishRequest, UnpublishRequest, VolumeId, VolumeSpec
from csi.refresh import Refresher
from csi.volumes import Registry, Volume

log = logging.getLogger(__name__)

VOLUME_MOUNT_GROUP: Final = "VOLUME_MOUNT_GROUP"


@attrs.frozen(kw_only=True)
class NodeInfo:
    """What the node says about itself."""

    node_id: str


async def wait_for_nothing(_: VolumeSpec) -> None:
    """Wait for nothing."""


class Node:
    """Answers kubelet's calls for volumes."""

    def __init__(
        self,
        *,
        node_id: str,
        link: KeeperLink,
        registry: Registry,
        locks: VolumeLocks,
        delivery: Delivery,
        refresher: Refresher,
        settled: Callable[[VolumeSpec], Awaitable[None]] = wait_for_nothing,
    ) -> None:
        """Act with what others own too.

        Args:
            node_id: The name of this node.
            link: The keeper.
            registry: The volumes.
            locks: Their locks.
            delivery: How a volume is published and taken away.
            refresher: Who refreshes it.
            settled: Waited for after a publish, without the lock; ends soon, and never fails.
        """
        self._node_id = node_id
        self._link = link
        self._registry = registry
        self._locks = locks
        self._delivery = delivery
        self._refresher = refresher
        self._settled = settled

    async def publish(self, request: PublishRequest) -> str | None:
        """Show a volume at its target; shown already is success.

        Returns:
            The provider of its content; None if it was shown already.

        Raises:
            CsiError: The class or the provider give no content.
            FusefsError: The keeper is not there, or does not take it.
        """
        volume_id = request.spec.volume_id
        if await self._republish(request):
            return None
        keeper = await self._link.session()
        async with self._locks.hold(volume_id):
            # Another call may have published it meanwhile; only now nobody else can.
            if self._renew(request) is not None:
                return None
            provider = await self._delivery.publish(keeper, request)
        self._refresher.reconsider()
        await self._settled(request.spec)
        return provider

    async def unpublish(self, request: UnpublishRequest) -> None:
        """Leave nothing of a volume at its target; nothing there is success.

        Raises:
            FusefsError: The keeper is not there, or something at the target is not ours.
        """
        keeper = await self._link.session()
        async with self._locks.seize(request.volume_id):
            await self._delivery.remove(keeper, request.volume_id, request.target)
        log.info(
            "volume unpublished",
            extra={logkeys.VOLUME_ID: request.volume_id, logkeys.TARGET: request.target},
        )

    def info(self) -> NodeInfo:
        """Return what the node says about itself."""
        return NodeInfo(node_id=self._node_id)

    def capabilities(self) -> tuple[str, ...]:
        """Return the optional calls and fields that the driver supports, as the CSI names them."""
        return (VOLUME_MOUNT_GROUP,)

    async def _republish(self, request: PublishRequest) -> bool:
        """Take what a republish brings; False when it is a first publish.

        Credentials are taken without the lock, so that a slow provider does not keep kubelet
        waiting for a refresh that is under way.
        """
        volume = self._renew(request)
        if volume is None:
            return False
        if self._is_due(volume.volume_id) and not self._locks.busy(volume.volume_id):
            await self._refresher.refresh(volume.volume_id)
        return True

    def _renew(self, request: PublishRequest) -> Volume | None:
        before = self._registry.shown(request.spec.volume_id)
        known = None if before is None else before.credentials
        volume = self._registry.renew(request)
        if volume is not None and volume.credentials != known:
            # What failed for want of credentials need not wait; what was resumed had none at all.
            self._refresher.renewed(volume)
        return volume

    def _is_due(self, volume_id: VolumeId) -> bool:
        return self._link.connected and self._refresher.is_due(volume_id, trio.current_time())

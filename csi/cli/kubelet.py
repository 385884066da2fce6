"""Kubelet's part in the life of one volume: layout, publish, republish, unpublish."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from csi.cli import calls
from csi.cli.errors import CallFailed, FoldersLeft

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from csi.cli.podvolume import PodVolume
    from csi.cli.processes import Changes

log = logging.getLogger(__name__)

REPUBLISH_S: Final = 5.0  # kubelet takes about a minute; here people watch

_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 1.0


class Kubelet:
    """Plays kubelet for one volume, over the real CSI socket."""

    def __init__(
        self, volume: PodVolume, *, root: Path, socket: Path, secrets: Mapping[str, str]
    ) -> None:
        """Use `secrets` as those of the pod's `nodePublishSecretRef`."""
        self.volume = volume
        self.target = volume.target(root)
        self._root = root
        self._directory = volume.directory(root)
        self._socket = socket
        self._secrets = secrets

    async def publish(self) -> None:
        """Do what kubelet does before a pod starts, and every minute of its life.

        Raises:
            CallFailed: The driver's answer.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        data = self._directory / "vol_data.json"
        if not data.exists():
            data.write_bytes(self.volume.data())
        await calls.publish(self._socket, self.volume, self.target, self._secrets)

    async def unpublish(self) -> None:
        """Do what kubelet does after a pod has ended.

        Raises:
            CallFailed: The driver's answer; kubelet's folders stay for the next attempt.
            FoldersLeft: The driver left something at the target.
        """
        await calls.unpublish(self._socket, self.volume.volume_id, self.target)
        (self._directory / "vol_data.json").unlink(missing_ok=True)
        pods = self._root / "pods"
        for folder in (self._directory, *self._directory.parents):
            if folder == pods:
                return
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                message = f"{folder} is left after the unpublish: {error.strerror}"
                raise FoldersLeft(message) from error

    async def keep_published(self, restarts: Changes) -> None:
        """Republish in regular intervals, and at once when a part of the driver was restarted."""
        seen = restarts.count
        while True:
            with trio.move_on_after(REPUBLISH_S):
                seen = await restarts.wait_beyond(seen)
            await self._until_published()

    async def _until_published(self) -> None:
        delay = _FIRST_RETRY_S
        while True:
            try:
                await self.publish()
            except CallFailed as error:
                log.info("publish: %s; trying again", error)
            else:
                return
            await trio.sleep(delay)
            delay = min(delay * 2, _LAST_RETRY_S)

"""The effects on one volume: first content, new content, the same content again, removal.

Node, refresh loop and recovery decide *when*; here is *how*, once. Every method is called under the
lock of its volume. State changes follow the keeper's answer at once, without an await between, so
the registry always says what the keeper acknowledged.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import trio

from csi import logkeys
from csi.errors import ContentTooLarge, FilesMissing, InvariantViolated, MountFailed
from csi.fetch import Content, Fetcher
from csi.grouping import Groups
from csi.keeper import Keeper
from csi.options import Filesystem
from csi.record import decode_options, encode_record
from csi.records import Credentials, ObjectVersion, PublishRequest, TargetPath, VolumeId, VolumeSpec
from csi.schedule import Schedule
from csi.volumes import Registry, State, Volume
from fusefs.errors import (
    InvalidSnapshot,
    InvalidTree,
    KeeperError,
    KeeperUnavailable,
    TargetRefused,
    VolumeUnknown,
)
from fusefs.published import Shown, VolumeOptions
from fusefs.snapshot import FileSpec, Sealed, Snapshot, differs, seal

log = logging.getLogger(__name__)

_UNDO_TIMEOUT_S: Final = 10.0


@attrs.frozen(kw_only=True)
class RotationPolicy:
    """How often volumes are refreshed.

    Attributes:
        enabled: False: only the first content of a volume is ever fetched.
        interval: Seconds, for classes that do not say.
        floor: What a class may not go below.
    """

    enabled: bool
    interval: float
    floor: float


@attrs.frozen(kw_only=True)
class Refreshed:
    """What a refresh came to.

    Attributes:
        provider: Who was asked.
        rotated: Whether the pod sees something else now.
    """

    provider: str
    rotated: bool


async def no_user_namespace(_: VolumeSpec) -> bool:
    """Take every pod to have no user namespace of its own."""
    return False


class Delivery:
    """Brings content into volumes and volumes away."""

    def __init__(
        self,
        *,
        registry: Registry,
        schedule: Schedule,
        fetcher: Fetcher,
        rotation: RotationPolicy,
        filesystem: Filesystem = "auto",
        user_namespace: Callable[[VolumeSpec], Awaitable[bool]] = no_user_namespace,
        on_changed: Callable[[VolumeSpec], None] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Act with what others own too.

        Args:
            registry: The volumes.
            schedule: When they are due.
            fetcher: Where content comes from.
            rotation: How often it is asked for.
            filesystem: What volumes are whose class does not say; with `fuse`, all of them.
            user_namespace: Asked before a volume is published: whether its pod has one of its own.
            on_changed: Told of a volume that may show something else, or is gone.
            now_ns: Dates new content.
        """
        self._registry = registry
        self._schedule = schedule
        self._fetcher = fetcher
        self._rotation = rotation
        self._filesystem = filesystem
        self._user_namespace = user_namespace
        self._on_changed = on_changed or (lambda _: None)
        self._now_ns = now_ns
        self._groups = Groups()

    async def publish(self, keeper: Keeper, request: PublishRequest) -> str:
        """Bring a volume that is not shown to its target. On failure nothing is left there.

        Returns:
            The provider of its content.

        Raises:
            CsiError: No content, see `Fetcher.fetch`.
            FusefsError: The keeper did not take it.
        """
        spec = request.spec
        before = self._registry.get(spec.volume_id)
        if before is not None:
            # Left over from an attempt whose outcome is unknown: its content must not answer.
            await self.remove(keeper, spec.volume_id, before.spec.target)
        volume = self._registry.begin(request)
        try:
            user_namespace = await self._user_namespace(spec)
            content = await self._fetcher.fetch(spec, request.credentials, ())
            sealed = self._seal(spec, content, None)
        except BaseException as error:
            if isinstance(error, MountFailed) and isinstance(error.error, FilesMissing):
                # They are in the target, and kubelet does not clean up after such a failure.
                await self._undo(keeper, volume, error)  # noqa: ASYNC102 - it shields itself
            else:
                self._registry.forget(volume)
            raise
        options = VolumeOptions(
            filesystem=self._filesystem_of(spec, content),
            user_namespace=user_namespace,
            selinux_context=request.selinux_context,
        )
        record = encode_record(spec, content.versions, options)
        try:
            shown = await keeper.publish(
                spec.volume_id, spec.target, sealed, record=record, options=options
            )
        except BaseException as error:
            sealed.snapshot.close()
            await self._undo(keeper, volume, error)  # noqa: ASYNC102 - it shields itself
            raise
        self._registry.served(volume, sealed.snapshot, content.versions, record)
        self._plan_refresh(volume, content)
        self._on_changed(spec)
        log.info(
            "volume published",
            extra=_fields(spec) | {logkeys.GENERATION: sealed.snapshot.generation},
        )
        _warn_of(spec, shown)
        return content.provider

    async def refresh(self, keeper: Keeper, volume: Volume) -> Refreshed:
        """Fetch the content of a shown volume and bring it in if it is new.

        Raises:
            CsiError: No content; what is shown stays.
            FusefsError: The keeper did not take it.
        """
        if volume.state is State.LOST:
            await self._bring_back(keeper, volume)
        credentials = volume.credentials or Credentials()
        content = await self._fetcher.fetch(volume.spec, credentials, volume.versions)
        try:
            rotated = await self._bring_in(keeper, volume, content)
        except VolumeUnknown:
            # The keeper lost it without our noticing; what the pod saw is brought back first.
            self._registry.lost(volume)
            await self._bring_back(keeper, volume)
            rotated = await self._bring_in(keeper, volume, content)
        self._plan_refresh(volume, content)
        self._on_changed(volume.spec)
        return Refreshed(provider=content.provider, rotated=rotated)

    async def _bring_back(self, keeper: Keeper, volume: Volume) -> None:
        """Restore a LOST volume; one whose content was written to gets what the provider has."""
        try:
            await self.restore(keeper, volume)
        except InvalidSnapshot:
            log.exception("the content of a volume is given up", extra=_fields(volume.spec))
            credentials = volume.credentials or Credentials()
            content = await self._fetcher.fetch(volume.spec, credentials, ())
            await self._restore(keeper, volume, content.files, content.versions)

    async def restore(self, keeper: Keeper, volume: Volume) -> None:
        """Publish a LOST volume again, with the content that it had.

        Raises:
            InvalidSnapshot: Somebody has written to that content.
            FusefsError: The keeper did not take it; the volume stays LOST.
        """
        previous = _snapshot(volume)
        previous.check_intact()  # the worker that is gone could write to it
        await self._restore(keeper, volume, _specs_of(previous), volume.versions)

    async def _restore(
        self,
        keeper: Keeper,
        volume: Volume,
        files: Sequence[FileSpec],
        versions: tuple[ObjectVersion, ...],
    ) -> None:
        sealed = seal(files, previous=_snapshot(volume), now_ns=self._now_ns())
        options = decode_options(volume.record)
        record = encode_record(volume.spec, versions, options)
        try:
            shown = await keeper.publish(
                volume.volume_id, volume.spec.target, sealed, record=record, options=options
            )
        except BaseException:
            sealed.snapshot.close()
            raise
        self._registry.served(volume, sealed.snapshot, versions, record)
        log.warning(
            "volume published again after the loss of its keeper", extra=_fields(volume.spec)
        )
        _warn_of(volume.spec, shown)

    async def remove(self, keeper: Keeper, volume_id: VolumeId, target: TargetPath) -> None:
        """Take a volume away from its target; absent is fine.

        Raises:
            FusefsError: It may still be there; the volume is UNWANTED until the next attempt.
        """
        volume = self._registry.get(volume_id)
        if volume is not None and volume.spec.target == target:
            self._schedule.remove(volume_id)
            self._registry.unwanted(volume)
        else:
            volume = None
        try:
            await keeper.unpublish(volume_id, target)
        except TargetRefused as error:
            if not error.layout:
                raise
            # Outside kubelet's layout we never mounted anything.
            log.warning(
                "unpublish of a target outside kubelet's layout; nothing to do",
                extra={logkeys.VOLUME_ID: volume_id, logkeys.TARGET: target},
            )
        if volume is not None and self._registry.get(volume_id) is volume:
            self._registry.forget(volume)
            self._on_changed(volume.spec)

    async def _bring_in(self, keeper: Keeper, volume: Volume, content: Content) -> bool:
        """Let the keeper show the content; return whether it is another than before."""
        previous = _snapshot(volume)
        record = encode_record(volume.spec, content.versions, decode_options(volume.record))
        if not differs(content.files, previous):
            if record != volume.record:
                await keeper.update_record(volume.volume_id, record)
                self._registry.recorded(volume, content.versions, record)
            return False
        sealed = self._seal(volume.spec, content, previous)
        try:
            await keeper.rotate(volume.volume_id, sealed, record=record)
        except BaseException:
            sealed.snapshot.close()
            raise
        self._registry.served(volume, sealed.snapshot, content.versions, record)
        log.info(
            "volume has new content",
            extra=_fields(volume.spec) | {logkeys.GENERATION: sealed.snapshot.generation},
        )
        return True

    def _seal(self, spec: VolumeSpec, content: Content, previous: Snapshot | None) -> Sealed:
        try:
            return seal(content.files, previous=previous, now_ns=self._now_ns())
        except InvalidTree as error:
            raise MountFailed(spec.namespace, spec.pod, content.provider, error) from error
        except InvalidSnapshot as error:
            too_large = ContentTooLarge(f"{error}; show fewer or smaller objects")
            raise MountFailed(spec.namespace, spec.pod, content.provider, too_large) from error

    async def _undo(self, keeper: Keeper, volume: Volume, error: BaseException) -> None:
        """After a failed publish: a refusal left nothing; after anything else make sure."""
        if isinstance(error, KeeperError):
            self._registry.forget(volume)
            return
        self._registry.unwanted(volume)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _UNDO_TIMEOUT_S):
            try:
                await self.remove(keeper, volume.volume_id, volume.spec.target)
            except (KeeperError, KeeperUnavailable):
                log.warning(
                    "a failed publish may have left a mount; the next session takes it away",
                    extra=_fields(volume.spec),
                )

    def _plan_refresh(self, volume: Volume, content: Content) -> None:
        """Give the volume its next refresh, in step with others of its class and identity."""
        if not self._rotation.enabled:
            return
        interval, now = self._interval(volume.spec, content), trio.current_time()
        group = self._groups.of(volume.spec, volume.credentials or Credentials())
        if not self._schedule.is_member(volume.volume_id, group):
            self._schedule.add(volume.volume_id, group, interval, now)
        self._schedule.succeeded(volume.volume_id, interval, now)

    def _filesystem_of(self, spec: VolumeSpec, content: Content) -> Filesystem:
        asked = content.options.filesystem
        if self._filesystem != "fuse":
            return asked or self._filesystem
        if asked == "tmpfs":
            log.warning(
                "the class asks for a tmpfs, which --filesystem=fuse does not allow; it is FUSE",
                extra=_fields(spec),
            )
        return "fuse"

    def _interval(self, spec: VolumeSpec, content: Content) -> float:
        asked = content.options.poll_interval
        if asked is None:
            return self._rotation.interval
        # An operator who refreshes everything faster than the floor means it.
        floor = min(self._rotation.floor, self._rotation.interval)
        if asked < floor:
            log.debug(
                "the class asks for a shorter interval than allowed",
                extra=_fields(spec) | {logkeys.SECONDS: asked},
            )
        return max(asked, floor)


def _snapshot(volume: Volume) -> Snapshot:
    if volume.snapshot is None:
        message = f"volume {volume.volume_id} is shown without content"
        raise InvariantViolated(message)
    return volume.snapshot


def _specs_of(snapshot: Snapshot) -> list[FileSpec]:
    return [
        FileSpec(
            path=entry.path,
            content=snapshot.content(entry.path),
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            object_id=entry.object_id,
            object_version=entry.object_version,
        )
        for entry in snapshot.entries()
    ]


def _warn_of(spec: VolumeSpec, shown: Shown) -> None:
    if shown.reason:
        log.warning(
            "the volume is a tmpfs: neither live nor audited",
            extra=_fields(spec) | {logkeys.ERROR: shown.reason},
        )
    if shown.restart:
        log.warning(
            "containers still see the dead or frozen volume of before; restart them",
            extra=_fields(spec) | {logkeys.CONTAINERS: ", ".join(shown.restart)},
        )


def _fields(spec: VolumeSpec) -> dict[str, object]:
    return {
        logkeys.VOLUME_ID: spec.volume_id,
        logkeys.POD: f"{spec.namespace}/{spec.pod}",
        logkeys.CLASS: spec.class_name,
    }

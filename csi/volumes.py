"""The published volumes and their states: synchronous, without I/O but closing what is replaced.

::

                 begin                served
    (absent) ───────────▶ PENDING ───────────▶ SERVED ◀──────┐
        ▲                    │                  │  │         │ served
        │ forget             │ unwanted         │  │ lost    │
        │                    ▼                  │  ▼         │
        └──────────────── UNWANTED ◀────────────┘ LOST ──────┘
                                     unwanted

The keeper is who knows what is mounted; this registry is what this node server knows and wants.
`reconcile` brings the two together when a session with a keeper starts. Each change happens between
two awaits, by whoever holds the lock of the volume; only `renew`, which touches nothing but what
came with a republish, and `reconcile` are called without it.
"""

import enum
import logging
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from csi import logkeys
from csi.errors import InvariantViolated, TargetTaken, VolumeElsewhere
from csi.record import decode_record
from csi.records import Credentials, ObjectVersion, PublishRequest, TargetPath, VolumeId, VolumeSpec
from fusefs.published import PublishedVolume
from fusefs.snapshot import Snapshot

log = logging.getLogger(__name__)


class State(enum.Enum):
    """What we know of a volume."""

    PENDING = "pending"  # its first content is on the way; nothing is at the target
    SERVED = "served"  # the keeper has acknowledged it
    LOST = "lost"  # we want it served, but no keeper serves it
    UNWANTED = "unwanted"  # nobody wants it, but a keeper may still have it


_SHOWN: Final = (State.SERVED, State.LOST)


@attrs.define(kw_only=True)
class Volume:
    """One volume. Change it through the registry.

    Attributes:
        credentials: What the pod brought last; None after a resume, until the next republish.
        snapshot: The content that the keeper acknowledged last, of SERVED and LOST volumes.
        versions: The object versions of that content, as the provider named them.
        record: The record that the keeper holds.
    """

    spec: VolumeSpec
    state: State
    credentials: Credentials | None = None
    snapshot: Snapshot | None = None
    versions: tuple[ObjectVersion, ...] = ()
    record: bytes = attrs.field(default=b"", repr=False)

    @property
    def volume_id(self) -> VolumeId:
        """The name of the volume."""
        return self.spec.volume_id

    @property
    def shown(self) -> bool:
        """Whether the pod sees it, or would, were the keeper alive."""
        return self.state in _SHOWN


@attrs.frozen(kw_only=True)
class Reconciliation:
    """What a new session found, for the caller to act on."""

    resumed: tuple[VolumeId, ...]  # served by the keeper, new to us
    lost: tuple[VolumeId, ...]  # ours, unknown to the keeper
    unwanted: tuple[VolumeId, ...]  # served by the keeper, wanted by nobody


class Registry:
    """Every volume this node server knows."""

    def __init__(self) -> None:
        """Start without volumes."""
        # Invariant: a volume stands under its own id.
        # Invariant: SERVED and LOST volumes have a snapshot, the others have none.
        # Invariant: PENDING, SERVED and LOST volumes have distinct targets.
        # Invariant: UNWANTED volumes have no credentials.
        self._volumes: dict[VolumeId, Volume] = {}

    def __iter__(self) -> Iterator[Volume]:
        """Iterate over a copy, so that volumes may come and go meanwhile."""
        return iter(list(self._volumes.values()))

    def get(self, volume_id: VolumeId) -> Volume | None:
        """Return a volume, if it is known."""
        return self._volumes.get(volume_id)

    def shown(self, volume_id: VolumeId) -> Volume | None:
        """Return a volume if the pod sees it, or would."""
        volume = self._volumes.get(volume_id)
        return volume if volume is not None and volume.shown else None

    def begin(self, request: PublishRequest) -> Volume:
        """Note that the first content of a volume is on the way.

        Raises:
            InvariantViolated: The volume is on the way or shown already.
            TargetTaken: Another volume has the target.
        """
        volume = self._volumes.get(request.spec.volume_id)
        if volume is not None and volume.state is not State.UNWANTED:
            message = f"volume {volume.volume_id} begins while it is {volume.state.value}"
            raise InvariantViolated(message)
        self._check_target_free(request.spec)
        volume = Volume(spec=request.spec, state=State.PENDING, credentials=request.credentials)
        self._volumes[volume.volume_id] = volume
        return volume

    def served(
        self,
        volume: Volume,
        snapshot: Snapshot,
        versions: tuple[ObjectVersion, ...],
        record: bytes,
    ) -> None:
        """Note what the keeper serves and holds; the registry owns `snapshot` from now on."""
        self._expect(volume, State.PENDING, State.SERVED, State.LOST)
        _replace_snapshot(volume, snapshot)
        volume.versions = versions
        volume.record = record
        volume.state = State.SERVED

    def recorded(self, volume: Volume, versions: tuple[ObjectVersion, ...], record: bytes) -> None:
        """Note a new record for the same content."""
        self._expect(volume, State.SERVED)
        volume.versions = versions
        volume.record = record

    def lost(self, volume: Volume) -> None:
        """Note that the keeper does not know the volume any more."""
        self._expect(volume, State.SERVED, State.LOST)
        volume.state = State.LOST

    def unwanted(self, volume: Volume) -> None:
        """Note that nobody wants the volume, and let go of its content and credentials."""
        _replace_snapshot(volume, None)
        volume.credentials = None
        volume.versions = ()
        volume.state = State.UNWANTED

    def forget(self, volume: Volume) -> None:
        """Forget a volume of which nothing is left."""
        self._expect(volume, State.PENDING, State.UNWANTED)
        del self._volumes[volume.volume_id]

    def renew(self, request: PublishRequest) -> Volume | None:
        """Take what a republish brings: None when the volume is not shown, so it is none.

        Raises:
            VolumeElsewhere: The volume is shown at another target.
        """
        volume = self.shown(request.spec.volume_id)
        if volume is None:
            return None
        if volume.spec.target != request.spec.target:
            raise VolumeElsewhere(volume.volume_id, volume.spec.target)
        volume.spec = request.spec
        volume.credentials = request.credentials
        return volume

    def reconcile(self, published: Iterable[PublishedVolume]) -> Reconciliation:
        """Compare with everything that the keeper serves; its word is the truth about that."""
        served = {VolumeId(each.volume_id): each for each in published}
        resumed, unwanted = [], []
        for volume_id, each in served.items():
            volume = self._volumes.get(volume_id)
            if volume is None or volume.shown:
                # A rotation whose acknowledgement was lost is found here, and was not wasted.
                if self._adopt(volume, each) and volume is None:
                    resumed.append(volume_id)
                continue
            # PENDING: its publish lost the keeper and is about to see that itself.
            if each.snapshot is not None:
                each.snapshot.close()
            if volume.state is State.UNWANTED:
                unwanted.append(volume_id)
        lost = [each for each in self if each.shown and each.volume_id not in served]
        for volume in lost:
            self.lost(volume)
        for volume in [each for each in self if each.state is State.UNWANTED]:
            if volume.volume_id not in served:
                self.forget(volume)
        return Reconciliation(
            resumed=tuple(resumed),
            lost=tuple(volume.volume_id for volume in lost),
            unwanted=tuple(unwanted),
        )

    def close(self) -> None:
        """Let go of all content."""
        for volume in self:
            _replace_snapshot(volume, None)
        self._volumes.clear()

    def check_invariants(self) -> None:
        """Raise `InvariantViolated` unless the invariants of `__init__` hold."""
        targets: set[TargetPath] = set()
        for volume_id, volume in self._volumes.items():
            if volume.volume_id != volume_id:
                raise _violated(volume, "stands under another id")
            if volume.shown is (volume.snapshot is None):
                raise _violated(volume, "has a snapshot or lacks one")
            if volume.state is State.UNWANTED:
                if volume.credentials is not None:
                    raise _violated(volume, "has credentials")
            elif volume.spec.target in targets:
                raise _violated(volume, "shares its target")
            else:
                targets.add(volume.spec.target)

    def _adopt(self, volume: Volume | None, published: PublishedVolume) -> bool:
        """Take what the keeper says; False when its snapshot is broken, so there is none."""
        if published.snapshot is None:
            log.error(
                "the keeper has no readable snapshot of a volume",
                extra={logkeys.VOLUME_ID: published.volume_id},
            )
            return False
        spec, versions = _recorded(published)
        if volume is None:
            volume = Volume(spec=spec, state=State.PENDING)
            self._volumes[volume.volume_id] = volume
        self.served(volume, published.snapshot, versions, published.record)
        return True

    def _check_target_free(self, spec: VolumeSpec) -> None:
        for volume in self._volumes.values():
            # An unwanted volume may still be mounted there; that the keeper knows better.
            if volume.state is not State.UNWANTED and volume.spec.target == spec.target:
                raise TargetTaken(spec.target, volume.volume_id)

    def _expect(self, volume: Volume, *states: State) -> None:
        if self._volumes.get(volume.volume_id) is not volume or volume.state not in states:
            raise _violated(volume, "is in no state for this change")


def _violated(volume: Volume, problem: str) -> InvariantViolated:
    return InvariantViolated(f"volume {volume.volume_id}, {volume.state.value}, {problem}")


def _replace_snapshot(volume: Volume, snapshot: Snapshot | None) -> None:
    if volume.snapshot is not None and volume.snapshot is not snapshot:
        volume.snapshot.close()
    volume.snapshot = snapshot


def _recorded(published: PublishedVolume) -> tuple[VolumeSpec, tuple[ObjectVersion, ...]]:
    """Return what the record says, or the little that the keeper knows if it is not ours.

    Without attributes no class can be looked up: such a volume stays as it is until the next
    republish brings them.
    """
    spec = VolumeSpec(
        volume_id=VolumeId(published.volume_id),
        target=TargetPath(published.target),
        attributes={},
    )
    try:
        recorded, versions = decode_record(published.record)
    except ValueError:
        log.warning(
            "a volume record cannot be read; the next republish replaces it",
            extra={logkeys.VOLUME_ID: published.volume_id, logkeys.SIZE: len(published.record)},
        )
        return spec, ()
    return attrs.evolve(recorded, volume_id=spec.volume_id, target=spec.target), versions

"""The registry by itself: what it refuses, and that its check finds every broken invariant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from csi.errors import InvariantViolated, TargetTaken
from csi.record import encode_record
from csi.records import Credentials, TargetPath, VolumeId
from csi.volumes import Registry, State, Volume
from fakes.kubelet import publish_request, volume_of
from fusefs.published import PublishedVolume
from fusefs.snapshot import FileSpec, Snapshot, seal

if TYPE_CHECKING:
    from collections.abc import Callable


def _snapshot(content: bytes = b"first") -> Snapshot:
    files = [FileSpec(path="password", content=content)]
    return seal(files, previous=None, now_ns=1).snapshot


def _served(registry: Registry, pod: str = "web") -> Volume:
    volume = registry.begin(publish_request(pod))
    registry.served(volume, _snapshot(), (), encode_record(volume.spec, ()))
    return volume


def _published(pod: str = "web", snapshot: Snapshot | None = None) -> PublishedVolume:
    spec = publish_request(pod).spec
    return PublishedVolume(
        volume_id=spec.volume_id,
        target=spec.target,
        generation=1,
        record=encode_record(spec, ()),
        worker_pid=None,
        snapshot=snapshot,
    )


def test_volume_that_is_shown_cannot_begin_again() -> None:
    """A second first publish is a defect of the caller, and loud."""
    registry = Registry()
    _served(registry)
    with pytest.raises(InvariantViolated, match="begins while it is served"):
        registry.begin(publish_request())
    registry.close()


def test_target_of_a_pending_volume_is_taken() -> None:
    """Two volumes on their way to one target are refused before anybody mounts."""
    registry = Registry()
    volume = registry.begin(publish_request())
    request = publish_request("other")
    spec = attrs.evolve(request.spec, target=volume.spec.target)
    with pytest.raises(TargetTaken):
        registry.begin(attrs.evolve(request, spec=spec))


def test_changes_in_the_wrong_state_are_refused() -> None:
    """Neither a forgotten volume nor one in another state is changed."""
    registry = Registry()
    volume = registry.begin(publish_request())
    with pytest.raises(InvariantViolated):
        registry.lost(volume)
    registry.forget(volume)
    with pytest.raises(InvariantViolated):
        registry.forget(volume)


def test_unwanted_volume_has_let_go_of_everything() -> None:
    """Nothing of a volume that nobody wants stays in memory."""
    registry = Registry()
    volume = _served(registry)
    snapshot = volume.snapshot
    registry.unwanted(volume)
    assert (volume.snapshot, volume.credentials, volume.versions) == (None, None, ())
    assert snapshot is not None
    with pytest.raises(ValueError, match=r"closed|invalid"):
        snapshot.content("password")
    registry.check_invariants()


def test_volume_without_a_snapshot_is_not_resumed() -> None:
    """What the keeper cannot hand over is told, and left to the next publish."""
    registry = Registry()
    found = registry.reconcile([_published()])
    assert (found.resumed, list(registry)) == ((), [])


def test_pending_volume_is_left_to_its_publish() -> None:
    """A session that starts under a publish leaves the volume to who is publishing it."""
    registry = Registry()
    volume = registry.begin(publish_request())
    found = registry.reconcile([_published(snapshot=_snapshot())])
    assert (found.resumed, found.lost, found.unwanted) == ((), (), ())
    assert volume.state is State.PENDING


def test_record_of_another_volume_does_not_rename() -> None:
    """The keeper's id and target count, whatever a record says."""
    registry = Registry()
    odd = attrs.evolve(_published("web", _snapshot()), record=_published("other").record)
    registry.reconcile([odd])
    [volume] = registry
    assert (volume.volume_id, volume.spec.pod) == (volume_of("web"), "other")
    registry.check_invariants()
    registry.close()


def _rename(volume: Volume) -> None:
    volume.spec = attrs.evolve(volume.spec, volume_id=VolumeId("another"))


def _drop_snapshot(volume: Volume) -> None:
    volume.snapshot = None


def _keep_credentials(volume: Volume) -> None:
    volume.state, volume.snapshot = State.UNWANTED, None
    volume.credentials = Credentials()


def _share_target(volume: Volume) -> None:
    volume.spec = attrs.evolve(volume.spec, target=TargetPath(publish_request("b").spec.target))


@pytest.mark.parametrize("damage", [_rename, _drop_snapshot, _keep_credentials, _share_target])
def test_check_finds_each_broken_invariant(damage: Callable[[Volume], None]) -> None:
    """Every sentence at the field has its check."""
    registry = Registry()
    volume = _served(registry, "a")
    _served(registry, "b")
    registry.check_invariants()
    damage(volume)
    with pytest.raises(InvariantViolated):
        registry.check_invariants()
    registry.close()

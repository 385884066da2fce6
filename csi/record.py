"""The volume record: what a keeper holds for us, from which a new node server resumes a volume.

It is opaque to the keeper and holds no credentials: those come with the next republish. A newer
version may add fields; unknown ones are ignored, so the record is readable both ways.
"""

import msgspec

from csi.records import ObjectVersion, TargetPath, VolumeId, VolumeSpec


class _Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    volume_id: str
    target: str
    attributes: dict[str, str]
    group: int | None = None
    versions: list[tuple[str, str]] = []


def encode_record(spec: VolumeSpec, versions: tuple[ObjectVersion, ...]) -> bytes:
    """Return the record of a volume that shows `versions`."""
    return msgspec.json.encode(
        _Record(
            volume_id=spec.volume_id,
            target=spec.target,
            attributes=dict(spec.attributes),
            group=spec.group,
            versions=[(version.id, version.version) for version in versions],
        )
    )


def decode_record(record: bytes) -> tuple[VolumeSpec, tuple[ObjectVersion, ...]]:
    """Return the volume that `record` describes and the versions that it shows.

    Raises:
        ValueError: `record` is none of ours.
    """
    decoded = msgspec.json.decode(record, type=_Record)  # msgspec's errors are ValueErrors
    spec = VolumeSpec(
        volume_id=VolumeId(decoded.volume_id),
        target=TargetPath(decoded.target),
        attributes=decoded.attributes,
        group=decoded.group,
    )
    return spec, tuple(ObjectVersion(*version) for version in decoded.versions)

"""The volume record: what a keeper holds for us, from which a new node server resumes a volume.

It is opaque to the keeper and holds no credentials: those come with the next republish. A newer
version may add fields; unknown ones are ignored, so the record is readable both ways.
"""

from typing import Literal

import attrs
import msgspec

from csi.records import ObjectVersion, TargetPath, VolumeId, VolumeSpec
from fusefs.published import DEFAULTS, VolumeOptions


class _Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    volume_id: str
    target: str
    attributes: dict[str, str]
    group: int | None = None
    versions: list[tuple[str, str]] = []
    filesystem: Literal["auto", "fuse", "tmpfs"] = DEFAULTS.filesystem
    user_namespace: bool = DEFAULTS.user_namespace
    selinux_context: str = DEFAULTS.selinux_context


def encode_record(
    spec: VolumeSpec,
    versions: tuple[ObjectVersion, ...],
    options: VolumeOptions = DEFAULTS,
) -> bytes:
    """Return the record of a volume that shows `versions` and was published with `options`."""
    return msgspec.json.encode(
        _Record(
            volume_id=spec.volume_id,
            target=spec.target,
            attributes=dict(spec.attributes),
            group=spec.group,
            versions=[(version.id, version.version) for version in versions],
            **attrs.asdict(options),
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


def decode_options(record: bytes) -> VolumeOptions:
    """Return what the volume was published with, or the default if `record` is none of ours."""
    try:
        decoded = msgspec.json.decode(record, type=_Record)
    except ValueError:
        return DEFAULTS
    return VolumeOptions(
        filesystem=decoded.filesystem,
        user_namespace=decoded.user_namespace,
        selinux_context=decoded.selinux_context,
    )

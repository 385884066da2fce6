"""The record that a keeper holds: it reads back, and older and newer forms are understood."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.record import decode_options, decode_record, encode_record
from csi.records import ObjectVersion, TargetPath, VolumeId, VolumeSpec
from fusefs.published import VolumeOptions

SPECS = st.builds(
    VolumeSpec,
    volume_id=st.text().map(VolumeId),
    target=st.text().map(TargetPath),
    attributes=st.dictionaries(st.text(), st.text()),
    group=st.none() | st.integers(0, 2**32 - 2),
)
OPTIONS = st.builds(
    VolumeOptions,
    filesystem=st.sampled_from(["auto", "fuse", "tmpfs"]),
    user_namespace=st.booleans(),
    selinux_context=st.text(),
)
VERSIONS = st.lists(st.builds(ObjectVersion, st.text(), st.text())).map(tuple)


@given(SPECS, VERSIONS, OPTIONS)
def test_record_reads_back(
    spec: VolumeSpec, versions: tuple[ObjectVersion, ...], options: VolumeOptions
) -> None:
    """What was written is what a new node server reads."""
    record = encode_record(spec, versions, options)
    assert decode_record(record) == (spec, versions)
    assert decode_options(record) == options


def test_fields_of_a_newer_version_are_ignored() -> None:
    """A node may go back to the version before."""
    spec = VolumeSpec(volume_id=VolumeId("v"), target=TargetPath("/t"), attributes={})
    newer = {**msgspec.json.decode(encode_record(spec, ())), "invented": [1]}
    assert decode_record(msgspec.json.encode(newer)) == (spec, ())


@pytest.mark.parametrize("record", [b"", b"\xff", b"[]", b'{"volume_id": 1}'])
def test_other_bytes_are_no_record(record: bytes) -> None:
    """What is not ours is refused, not guessed."""
    with pytest.raises(ValueError, match=r".+"):
        decode_record(record)

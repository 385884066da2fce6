"""Refused publishes: what the answer must hold, that nothing is left, that the remedy helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import grpc
import pytest

if TYPE_CHECKING:
    from harness.kubelet import PodVolume
    from harness.node import Node

CANARY: Final = "canary-0d1f7c"
SECRETS: Final = {"clientid": "app", "clientsecret": CANARY}
MOUNT_FAILED: Final = "failed to mount secrets store objects for pod shop/web-0, err: "


@attrs.frozen(kw_only=True)
class Refusal:
    """The answer to bad input.

    Attributes:
        starts: The first words: the reference driver's where it has them.
        field: The name of what is wrong, as whoever can change it knows it.
        remedy: Words that say what to do.
    """

    code: grpc.StatusCode
    starts: str
    field: str
    remedy: str


def check_refused(node: Node, volume: PodVolume, refusal: Refusal, **changes: object) -> None:
    """Publish with `changes` to a valid request; the answer must be `refusal`, with no effect."""
    before = node.footprint()
    with pytest.raises(grpc.RpcError) as caught:
        node.publish(volume, **{"secrets": SECRETS, **changes})
    error = caught.value
    details = error.details() or ""
    assert error.code() is refusal.code, details
    assert details.startswith(refusal.starts), details
    assert refusal.field in details
    assert refusal.remedy in details
    assert node.footprint() == before
    assert CANARY not in details
    assert CANARY not in node.server.log + node.keeper.log


def check_accepted(node: Node, volume: PodVolume) -> None:
    """Publish, read and unpublish a volume with the provider's usual secret; nothing is left."""
    node.publish(volume, secrets=SECRETS)
    try:
        assert (volume.target / "password").read_bytes() == b"first"
    finally:
        node.unpublish(volume)
    volume.remove()
    assert not volume.directory.exists()

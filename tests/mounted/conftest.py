"""Fixtures of the mounted tier: one keeper behind a shared kubelet directory, one volume."""

from harness.fixtures import (
    client,
    keeper,
    keeper_command,
    keeper_socket,
    kubelet,
    published,
    takeover,
)

__all__ = [
    "client",
    "keeper",
    "keeper_command",
    "keeper_socket",
    "kubelet",
    "published",
    "takeover",
]

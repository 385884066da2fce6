"""Pods for scenarios."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.addresses import READER_IMAGE

if TYPE_CHECKING:
    from cluster.api import Thing


def pod(name: str, *containers: Thing, **spec: object) -> Thing:
    """Return a pod that ends as soon as it is told to.

    Args:
        name: Of the pod.
        containers: Its containers.
        spec: Other fields of its spec.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": list(containers), **spec},
    }


def container(*command: str, name: str = "main", **fields: object) -> Thing:
    """Return a container of the reader image; without a command it does nothing, for ever."""
    made: Thing = {"name": name, "image": READER_IMAGE, **fields}
    return {**made, "command": list(command)} if command else made

"""Pods for scenarios."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.addresses import READER_IMAGE

if TYPE_CHECKING:
    from cluster.api import Thing

PROGRAMS: Final = Path(__file__).parent / "inpod"


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
        "spec": {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec},
    }


def container(*command: str, name: str = "main", **fields: object) -> Thing:
    """Return a container of the reader image; without a command it does nothing, for ever."""
    made: Thing = {"name": name, "image": READER_IMAGE, **fields}
    return {**made, "command": list(command)} if command else made


def python(program: str, *arguments: str) -> list[str]:
    """Return the command of a container that runs one of the programs in `inpod/`."""
    text = (PROGRAMS / f"{program}.py").read_text(encoding="utf-8")
    return ["python3", "-c", text, *arguments]

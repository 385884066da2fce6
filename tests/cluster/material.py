"""Everything that has to be made before a node can start."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import attrs

from cluster import images, programs, roots

if TYPE_CHECKING:
    from pathlib import Path


@attrs.frozen(kw_only=True)
class Material:
    """What a node is made of.

    Attributes:
        programs: Folder of Kubernetes' programs and helm.
        layers: Of the node's root, highest first.
        pause: Archive of the image that every pod needs.
        reader: Archive of the image for the pods of scenarios.
    """

    programs: Path
    layers: tuple[Path, ...]
    pause: Path
    reader: Path


def material() -> Material:
    """Return what a node is made of, after making what the cache does not hold.

    The compilers are busy for minutes while the other half waits for the network most of the time,
    so both are done at once.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        compiled = pool.submit(programs.programs)
        layers = (roots.node_layer(), roots.base())
        pause, reader = images.pause(), images.reader()
        return Material(programs=compiled.result(), layers=layers, pause=pause, reader=reader)

"""The keeper's processes, as this machine sees them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cluster.containers import children, container_id, first_process
from cluster.driver import KEEPER

if TYPE_CHECKING:
    from cluster.driver import Driver


def process(driver: Driver) -> int:
    """Return the keeper itself: the only child of its container's first process."""
    [found] = children(first_process(container_id(driver.pod(KEEPER))))
    return found


def workers(driver: Driver) -> list[int]:
    """Return the workers: the keeper's only children with a uid of their own."""
    return [pid for pid in children(process(driver)) if Path(f"/proc/{pid}").stat().st_uid]

"""A pod whose four readers read a volume all the time, on every path that a pod can have to it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from cluster import readers
from cluster.containers import restart
from cluster.pods import pod
from cluster.volumes import mounted, volume
from harness.waiting import NotInTime, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cluster.cluster import Cluster
    from cluster.readers import Reads
    from cluster.table import Row

ATTEMPTS: Final = 500  # of each reader within an event
ATTEMPTS_TIMEOUT_S: Final = 60.0
DISCONNECTED: Final = "transport endpoint is not connected"
READERS_THAT_SAY_WHY: Final = ("python", "go", "c")  # a shell only knows that it failed


@attrs.define(kw_only=True)
class Reading:
    """The pod while it reads.

    Attributes:
        name: Of the pod.
    """

    _cluster: Cluster
    name: str

    @contextmanager
    def watched(self, row: Row) -> Iterator[None]:
        """Watch the readers while an event happens in the block; none of them may fail.

        Afterwards it goes on until each has made `ATTEMPTS` attempts since the beginning.

        Raises:
            AssertionError: A read failed.
        """
        begin = readers.now_ms()
        yield
        seen = self.seen_since(begin)
        row.reads(seen)
        failed = {name: each.last_error for name, each in seen.items() if each.errors}
        assert not failed

    @contextmanager
    def disconnected(self, row: Row) -> Iterator[None]:
        """Watch the readers during an event that no mount survives yet, as the table then says.

        Raises:
            AssertionError: A reader has kept its mount, or lost it in another way.
        """
        begin = readers.now_ms()
        yield
        seen = self.seen_since(begin)
        row.reads(seen)
        row.not_survived("the readers' mounts are gone until their containers restart")
        kept = [name for name, each in seen.items() if not each.errors]
        assert not kept
        errors = {name: seen[name].last_error.lower() for name in READERS_THAT_SAY_WHY}
        assert all(error.endswith(DISCONNECTED) for error in errors.values()), errors

    def restart(self, program: str) -> None:
        """Kill a reader, and return when its next container has read on every path.

        Raises:
            AssertionError: A read of that container failed.
        """
        restart(self._cluster, self._cluster.wait_for_ready(self.name), program)
        seen = self.seen_since(0, only=program)
        assert not seen[program].errors, seen

    def seen_since(self, begin_ms: int, *, only: str | None = None) -> Mapping[str, Reads]:
        """Return what each reader has met from a time to now, which is put off for `ATTEMPTS`."""
        seen: dict[str, Reads] = {}

        def enough() -> bool:
            end = readers.now_ms()
            for program in [only] if only else readers.PROGRAMS:
                seen[program] = readers.reads(
                    self._cluster, self.name, program, begin_ms=begin_ms, end_ms=end
                )
            return all(each.attempts >= ATTEMPTS for each in seen.values())

        try:
            eventually(
                enough, "every reader has read often", timeout_s=ATTEMPTS_TIMEOUT_S, pause_s=0.5
            )
        except NotInTime as error:
            error.add_note(str(seen))
            raise
        return seen


@contextmanager
def reading(cluster: Cluster, name: str, class_name: str, file: str) -> Iterator[Reading]:
    """Run a pod whose readers read a file of a class: live, through `subPath` and in `..data`.

    Args:
        cluster: Where.
        name: Of the pod, which is gone afterwards.
        class_name: Of its only volume.
        file: Path in the volume.
    """
    paths = [f"/secrets/{file}", "/single", f"/secrets/..data/{file}"]
    mounts = [mounted(), mounted("/single", sub_path=file)]
    cluster.apply(pod(name, *readers.containers(paths, mounts), volumes=[volume(class_name)]))
    try:
        cluster.wait_for_ready(name)
        yield Reading(cluster=cluster, name=name)
    finally:
        cluster.delete("pod", name)

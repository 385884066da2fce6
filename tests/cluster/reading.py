"""Pods whose readers read a volume all the time, on every path that a pod can have to it."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from cluster import readers
from cluster.containers import restart
from cluster.pods import pod
from cluster.volumes import mounted, volume
from harness.waiting import NotInTime, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cluster.api import Thing
    from cluster.cluster import Cluster
    from cluster.readers import Reads
    from cluster.table import Row

ATTEMPTS: Final = 500  # of each reader within an event
ATTEMPTS_TIMEOUT_S: Final = 60.0
CONTENT_TIMEOUT_S: Final = 30.0


@attrs.frozen(kw_only=True)
class Reader:
    """One of the readers: a container of a pod."""

    pod: str
    program: str


@attrs.define(kw_only=True)
class Reading:
    """The pods while they read.

    Attributes:
        readers: All readers.
    """

    _cluster: Cluster
    _paths: Sequence[str]
    readers: Sequence[Reader]

    @contextmanager
    def watched(self, row: Row) -> Iterator[None]:
        """Watch the readers while an event happens in the block; none of them may fail.

        Afterwards it goes on until each has made `ATTEMPTS` attempts since the beginning.

        Raises:
            AssertionError: A read failed.
        """
        begin = readers.now_ms()
        yield
        seen = self._seen_since(begin, self.readers)
        row.reads(seen.values())
        failed = {reader: each.last_error for reader, each in seen.items() if each.errors}
        assert not failed

    def wait_until_all_read(self, content: str) -> None:
        """Return when each reader's container has this on every path.

        Raises:
            NotInTime: One does not.
        """
        wanted = content * len(self._paths)

        def read(reader: Reader) -> str:
            command = ("cat", *self._paths)
            return self._cluster.execute(reader.pod, *command, container=reader.program)

        eventually(
            lambda: all(read(reader) == wanted for reader in self.readers),
            f"all read {content}",
            timeout_s=CONTENT_TIMEOUT_S,
            pause_s=0.2,
        )

    def restart(self, reader: Reader) -> None:
        """Kill a reader, and return when its next container has read on every path.

        Raises:
            AssertionError: A read of that container failed.
        """
        restart(self._cluster, self._cluster.wait_for_ready(reader.pod), reader.program)
        seen = self._seen_since(0, [reader])
        assert not seen[reader].errors, seen

    def _seen_since(self, begin_ms: int, wanted: Sequence[Reader]) -> Mapping[Reader, Reads]:
        """Return what readers have met from a time to now, which is put off for `ATTEMPTS`."""
        seen: dict[Reader, Reads] = {}

        def enough() -> bool:
            end = readers.now_ms()
            for each in wanted:
                seen[each] = readers.reads(
                    self._cluster, each.pod, each.program, begin_ms=begin_ms, end_ms=end
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
    """Run a pod whose four readers read a file of a class: live, through `subPath`, in `..data`.

    Args:
        cluster: Where.
        name: Of the pod, which is gone afterwards.
        class_name: Of its only volume.
        file: Path in the volume.
    """
    containers = {name: readers.containers(_paths(file), _mounts(file))}
    with _running(cluster, containers, class_name, file) as found:
        yield found


@contextmanager
def many_reading(cluster: Cluster, class_name: str, file: str, *, pods: int) -> Iterator[Reading]:
    """Run pods with one of the four readers each, in turn, and otherwise as `reading` does."""
    kinds = itertools.cycle(readers.containers(_paths(file), _mounts(file)))
    containers = {f"{class_name}-{number}": [next(kinds)] for number in range(pods)}
    with _running(cluster, containers, class_name, file) as found:
        yield found


@contextmanager
def _running(
    cluster: Cluster, containers: Mapping[str, Sequence[Thing]], class_name: str, file: str
) -> Iterator[Reading]:
    """Run pods of these names and containers."""
    volumes = [volume(class_name)]
    cluster.apply(*(pod(name, *own, volumes=volumes) for name, own in containers.items()))
    try:
        for name in containers:
            cluster.wait_for_ready(name)
        yield Reading(
            cluster=cluster,
            paths=_paths(file),
            readers=[
                Reader(pod=name, program=each["name"])
                for name, own in containers.items()
                for each in own
            ],
        )
    finally:
        cluster.kubectl("delete", "pod", *containers, "--ignore-not-found")


def _paths(file: str) -> list[str]:
    return [f"/secrets/{file}", "/single", f"/secrets/..data/{file}"]


def _mounts(file: str) -> list[Thing]:
    return [mounted(), mounted("/single", sub_path=file)]

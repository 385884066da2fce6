"""A volume inside a worker, without kernel and keeper: node table, page of counts, handlers."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

import pyfuse3

from fakes.fuse import answer
from fakes.trees import Files, specs
from fusefs.nodeids import ROOT_NODE
from fusefs.nodes import NodeTable
from fusefs.operations import VolumeOperations
from fusefs.plan import Plan, Step, decode
from fusefs.snapshot import Snapshot, seal
from fusefs.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT: Final = pyfuse3.RequestContext()


class FakeVolume:
    """One volume and its worker, which `restart` replaces.

    Attributes:
        table: The node table of the worker of the moment.
        operations: Its handlers.
        descriptors: What a keeper would hold: the memory files of every generation kept.
        digests: What they must hold where they are secret memory.
        newest: The last generation that was sealed, as the node server has it.
        plan: The plan in progress, as a keeper would give it to a new worker.
        bound: Live nodes that the kernel knows although no name leads to them.
        links: The ``..data`` links that the kernel knows, the newest last.
    """

    def __init__(self, files: Files) -> None:
        self.page = Usage.create()
        self.usage = Usage(self.page)
        self.descriptors: dict[int, int] = {}
        self.digests: dict[int, bytes] = {}
        self.newest: Snapshot | None = None
        self.bound: set[int] = set()
        self.links: list[int] = []
        self.plan = Plan(generation=1, previous=0)
        self.table = NodeTable(self.usage)
        self.operations = VolumeOperations(self.table)
        self.swap(files)

    def swap(self, files: Files) -> Plan:
        """Seal the next generation and make it the current one; return its plan."""
        sealed = seal(specs(files), previous=self.newest, now_ns=len(self.descriptors) + 1)
        if self.newest:
            self.newest.close()
        self.newest = sealed.snapshot
        generation = self.newest.generation
        self.descriptors[generation] = os.dup(self.newest.fd)
        self.digests[generation] = self.newest.digest
        self.plan = decode(sealed.plan)
        self.table.keep(Snapshot.map(os.dup(self.newest.fd), self.newest.digest))
        self.table.begin(generation, self.plan)
        return self.plan

    def finish(self) -> None:
        """End the plan in progress, as the keeper does after the touch child."""
        self.plan = Plan(generation=self.table.current, previous=0)
        self.table.finish()

    def restart(self) -> None:
        """Replace the worker: only the page, the sealed files and the plan survive."""
        self._unmap()
        self.usage = Usage(self.page)
        self.table = NodeTable(self.usage)
        for generation, fd in self.descriptors.items():
            self.table.keep(Snapshot.map(os.dup(fd), self.digests[generation]))
        self.table.begin(max(self.descriptors), self.plan)
        self.operations = VolumeOperations(self.table)

    def drop(self, generations: list[int], *, forced: bool = False) -> list[int]:
        """Drop generations in worker and keeper; return those that went."""
        gone = self.table.drop(generations, forced=forced, is_known=self.bound.__contains__)
        for generation in gone:
            os.close(self.descriptors.pop(generation))
        return gone

    def in_use(self) -> set[int]:
        """Return the generations in use, as counted once the next look-up has come."""
        self.table.count_lookup(ROOT_NODE)
        return {number for number in range(1, self.table.current + 1) if self.usage.in_use(number)}

    def node(self, path: str, root: int = ROOT_NODE) -> int:
        """Walk from `root` and return the node, without counting the look-ups."""
        node = root
        for name in path.split("/"):
            node = self.table.resolve(node, name.encode())
        return node

    def ask(self, step: Step) -> None:
        """Ask the handlers for one step, as the touch child's system call would."""
        parent, _, name = step.path.rpartition("/")
        where = self.node(parent) if parent else ROOT_NODE
        operations, encoded = self.operations, name.encode()
        match step.kind:
            case "mkdir":
                answer(operations.mkdir(where, encoded, 0o755, CONTEXT))
            case "create":
                info, _ = answer(operations.create(where, encoded, 0o444, os.O_WRONLY, CONTEXT))
                answer(operations.release(info.fh))
            case "unlink":
                answer(operations.unlink(where, encoded, CONTEXT))
            case "rmdir":
                answer(operations.rmdir(where, encoded, CONTEXT))

    def link(self) -> None:
        """Ask for the link to the current generation under its temporary name."""
        target = b"..%d" % self.table.current
        entry = answer(self.operations.symlink(ROOT_NODE, b"..data_tmp", target, CONTEXT))
        self.links.append(entry.st_ino)

    def swing(self) -> None:
        """Ask for the rename that makes ``..data`` name the current generation.

        The kernel forgets the link that was renamed over.
        """
        names = (ROOT_NODE, b"..data_tmp", ROOT_NODE, b"..data")
        answer(self.operations.rename(*names, 0, CONTEXT))
        answer(self.operations.forget([(node, 1) for node in self.links[:-1]]))
        del self.links[:-1]

    def rotate(self, files: Files) -> None:
        """Bring in a generation from beginning to end."""
        for step in self.swap(files).steps:
            self.ask(step)
        self.link()
        self.swing()
        self.finish()

    def _unmap(self) -> None:
        for kept in self.table.generations.values():
            kept.snapshot.close()
        self.usage.close()

    def close(self) -> None:
        """Let go of everything."""
        self._unmap()
        for fd in self.descriptors.values():
            os.close(fd)
        os.close(self.page)
        if self.newest:
            self.newest.close()


@contextlib.contextmanager
def volume_of(files: Files) -> Iterator[FakeVolume]:
    """Return a volume that shows `files`, and let go of it in the end."""
    volume = FakeVolume(files)
    try:
        yield volume
    finally:
        volume.close()

"""Names and attributes of one volume, seen from the kernel.

Two views share one number space (`nodeids`): a *live* node lives as long as its path, a
*generation* node belongs to one generation and never changes. Everything is synchronous and
without I/O: handlers call in, nothing calls out.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from fusefs import attributes
from fusefs.attributes import Attributes
from fusefs.errors import NoSuchAttribute, NoSuchName, NotADirectoryNode, StaleGeneration
from fusefs.generation import Generation, Transition
from fusefs.nodeids import LINK_LOCAL, PRIME_NAME, PRIME_NODE, ROOT_NODE, joined, split
from fusefs.plan import DATA_LINK, DATA_LINK_NEXT, Plan
from fusefs.snapshot import DirectoryEntry, FileEntry, Snapshot
from fusefs.usage import Usage


class NodeTable:
    """All nodes of one volume.

    Invariants (`check_invariants`): the current generation is kept; the plan in progress leads to
    it, from a generation that is kept.
    """

    def __init__(self, usage: Usage) -> None:
        """Start empty; `begin` brings the first generation."""
        self.generations: dict[int, Generation] = {}
        self.current = 0
        self.transition: Transition | None = None
        self.priming = False
        self._releasing = 0
        self._usage = usage

    # Generations

    def keep(self, snapshot: Snapshot) -> None:
        """Keep a generation, without making it the current one."""
        self.generations[snapshot.generation] = Generation(snapshot)

    def begin(self, generation: int, plan: Plan) -> None:
        """Make a kept generation the current one and start its plan where the page says it is."""
        self.current = generation
        self.transition = (
            Transition(plan, self._usage.progress(generation)) if plan.previous else None
        )

    def advance(self, done: int) -> None:
        """Record that `done` operations of the plan in progress are carried out."""
        if self.transition and done > self.transition.done:
            self.transition.done = done
            self._usage.set_progress(self.current, done)

    def finish(self) -> None:
        """End the plan in progress: all of it is done."""
        self.transition = None

    def drop(
        self, generations: list[int], *, forced: bool, is_known: Callable[[int], bool]
    ) -> list[int]:
        """Let go of generations that nobody uses, or of all of them, and return which went.

        Args:
            generations: Which may go.
            forced: Whether they go although they are in use.
            is_known: Says whether the kernel holds a live node. Live nodes are not counted, and a
                removed file that a pod has bound elsewhere is shown from the last generation that
                had it.
        """
        self.settle()
        gone = [
            number
            for number in generations
            if number in self.generations
            and number != self.current
            and (forced or not (self._usage.in_use(number) or self._is_bound(number, is_known)))
        ]
        for number in gone:
            self.generations.pop(number).snapshot.close()
            self._usage.clear(number)
        return gone

    def _is_bound(self, number: int, is_known: Callable[[int], bool]) -> bool:
        """Return whether the kernel holds a live node that no later kept generation has."""
        later = [self.generations[other] for other in self.generations if other > number]
        kept = self.generations[number]
        return any(
            is_known(local)
            for local in (*kept.files, *kept.directories)
            if not any(local in other for other in later)
        )

    @property
    def shown(self) -> int:
        """The generation that ``..data`` and new listings name."""
        if self.transition and not self.transition.swung:
            return self.transition.plan.previous
        return self.current

    # Names

    def lookup(self, parent: int, name: bytes) -> int:
        """Return the node of `name` in `parent` and count the look-up."""
        node = self.resolve(parent, name)
        self.count_lookup(node)
        return node

    def resolve(self, parent: int, name: bytes) -> int:
        """Return the node of `name` in `parent`.

        Raises:
            NoSuchName: There is no such name, or not yet.
            NotADirectoryNode: `parent` is no directory.
            StaleGeneration: `parent` belongs to a generation that is gone.
        """
        generation, local = split(parent)
        if generation:
            children = self._children(self._generation(generation), local)
            if name not in children:
                raise NoSuchName
            return joined(generation, children[name])
        if local == ROOT_NODE and name.startswith(b".."):
            return self._resolve_reserved(name)
        return self._resolve_live(local, name)

    def _resolve_reserved(self, name: bytes) -> int:
        text = name.decode(errors="replace")
        if text == DATA_LINK:
            return joined(self.shown, LINK_LOCAL)
        if text == DATA_LINK_NEXT and self.transition and self.transition.linked:
            return joined(self.current, LINK_LOCAL)
        if name == PRIME_NAME and self.priming:
            return PRIME_NODE
        # Every kept generation resolves, though only one is listed: a path walk may stand
        # between READLINK of ``..data`` and LOOKUP of what it said.
        # In one spelling only: the kernel moves a directory that it finds under a second name.
        number = text[2:]
        if re.fullmatch("[1-9][0-9]*", number) and int(number) in self.generations:
            return joined(int(number), ROOT_NODE)
        raise NoSuchName

    def _resolve_live(self, local: int, name: bytes) -> int:
        source = self.current
        if self.transition:
            side = self.transition.side_of(self.path_of(local, name))
            if side == "nowhere":
                raise NoSuchName
            if side == "previous":
                source = self.transition.plan.previous
        self._live_directory(local)
        node = self._generation(source).children.get(local, {}).get(name)
        if node is None:
            raise NoSuchName
        return node

    def _live_directory(self, local: int) -> DirectoryEntry:
        holder = self._holder(local)
        if local not in holder.directories:
            raise NotADirectoryNode
        return holder.directories[local]

    def path_of(self, parent: int, name: bytes) -> str:
        """Return the path that `name` has, or would have, in the live directory `parent`.

        Raises:
            NoSuchName: `parent` is not a live directory.
        """
        generation, local = split(parent)
        if generation:
            raise NoSuchName
        directory = self._live_directory(local)
        text = name.decode(errors="replace")
        return f"{directory.path}/{text}" if directory.path else text

    def count_lookup(self, node: int, count: int = 1) -> None:
        """Count that the kernel learnt of `node`, or (negative) forgot it."""
        self.settle()
        generation, _ = split(node)
        if generation:
            self._usage.add_lookups(generation, count)

    def opened(self, generation: int) -> None:
        """Count that a handle on `generation` was opened."""
        self.settle()
        self._usage.add_handles(generation, 1)

    def released(self, generation: int) -> None:
        """Count that a handle on `generation` was released.

        It is counted once it is answered (`settle`): were it now, and the worker killed before its
        answer, the kernel would send the release again and a successor count it twice.
        """
        self.settle()
        self._releasing = generation

    def is_idle(self) -> bool:
        """Return whether no handle is open. Call when every request has been answered."""
        self.settle()
        return not self._usage.open_handles()

    def settle(self) -> None:
        """Count the release that was answered last. Call when every request has been answered."""
        if self._releasing:
            self._usage.add_handles(self._releasing, -1)
            self._releasing = 0

    def listing(
        self, generation: int, directory: int, *, live: bool
    ) -> Iterator[tuple[bytes, int]]:
        """Yield names and nodes of a directory as `generation` has it, sorted."""
        kept = self._generation(generation)
        if live and directory == ROOT_NODE:
            yield DATA_LINK.encode(), joined(generation, LINK_LOCAL)
            yield b"..%d" % generation, joined(generation, ROOT_NODE)
        for name, local in sorted(self._children(kept, directory).items()):
            yield name, local if live else joined(generation, local)

    # Attributes and content

    def attributes(self, node: int) -> Attributes:
        """Return what stat shows of `node`: of a live node, the current generation's.

        Raises:
            StaleGeneration: The node's generation is gone, or nothing kept has the node.
        """
        generation, local = split(node)
        if node == PRIME_NODE:
            return attributes.of_prime(node)
        if generation and local == LINK_LOCAL:
            return attributes.of_link(node, generation, self.generations.get(generation))
        holder = self._generation(generation) if generation else self._holder(local)
        if local in holder.files:
            return attributes.of_file(node, holder.files[local])
        if local not in holder.directories:
            raise StaleGeneration
        return attributes.of_directory(node, holder, local)

    def data_link(self, generation: int) -> int:
        """Return the node of the ``..data`` link of `generation`."""
        return joined(generation, LINK_LOCAL)

    def directories_of(self, generation: int) -> Mapping[int, DirectoryEntry]:
        """Return the directories of a kept generation, by local id.

        Raises:
            StaleGeneration: The generation is gone.
        """
        return self._generation(generation).directories

    def link_target(self, node: int) -> bytes:
        """Return where a ``..data`` link points.

        Raises:
            NoSuchName: `node` is no link.
        """
        generation, local = split(node)
        if local != LINK_LOCAL:
            raise NoSuchName
        return b"..%d" % generation

    def file(self, node: int) -> tuple[int, FileEntry]:
        """Return generation and entry of the file `node` as an open would see it now.

        Raises:
            StaleGeneration: Nothing kept has the node, or it is no file.
        """
        generation, local = split(node)
        holder = self._generation(generation) if generation else self._holder(local)
        if local not in holder.files:
            raise StaleGeneration
        return holder.snapshot.generation, holder.files[local]

    def read(self, generation: int, local: int, offset: int, length: int) -> bytes:
        """Return bytes of a file of `generation`.

        Raises:
            StaleGeneration: The generation is gone.
        """
        kept = self._generation(generation)
        if local not in kept.files:
            raise StaleGeneration
        return kept.snapshot.read(kept.files[local], offset, length)

    def extended_attributes(self, node: int) -> dict[bytes, bytes]:
        """Return the extended attributes of `node`: which object, version and generation it shows.

        Raises:
            NoSuchAttribute: The node has none: links, and the priming file.
        """
        generation, local = split(node)
        if local in (LINK_LOCAL, PRIME_NODE):
            raise NoSuchAttribute
        holder = self._generation(generation) if generation else self._holder(local)
        found = {b"user.akv.generation": b"%d" % holder.snapshot.generation}
        if local in holder.files:
            entry = holder.files[local]
            found[b"user.akv.object"] = entry.object_id.encode()
            found[b"user.akv.version"] = entry.object_version.encode()
        return found

    def totals(self) -> tuple[int, int]:
        """Return bytes and number of files of the current generation."""
        kept = self._generation(self.current)
        return sum(entry.size for entry in kept.files.values()), len(kept.files)

    def live_nodes(self) -> list[int]:
        """Return every live node that any kept generation has."""
        nodes = set[int]()
        for kept in self.generations.values():
            nodes.update(kept.files, kept.directories)
        return sorted(nodes)

    def _generation(self, number: int) -> Generation:
        try:
            return self.generations[number]
        except KeyError:
            raise StaleGeneration from None

    def _holder(self, local: int) -> Generation:
        """Return the newest kept generation that has the live node `local`."""
        current = self._generation(self.current)
        if local in current:
            return current
        for number in sorted(self.generations, reverse=True):
            if local in self.generations[number]:
                return self.generations[number]
        raise StaleGeneration

    @staticmethod
    def _children(kept: Generation, local: int) -> dict[bytes, int]:
        if local not in kept.children:
            raise NotADirectoryNode
        return kept.children[local]

    def check_invariants(self) -> None:
        """Raise `AssertionError` when an invariant of this class does not hold."""
        if self.generations and self.current not in self.generations:
            message = f"current generation {self.current} is not kept"
            raise AssertionError(message)
        if self.transition and self.transition.plan.previous not in self.generations:
            message = f"generation {self.transition.plan.previous} of the plan is not kept"
            raise AssertionError(message)

"""A volume whose keeper and node server hold it for each other, and die.

To `fakes.keeperworld` comes the node server: its store is the real one, and so is what puts a
volume together from what is given back. Messages travel in order through two queues; what a keeper
had said before it died is still read, what it had not read is lost.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from typing_extensions import override

from fakes.keeperworld import KeeperWorld
from fakes.trees import Files, specs
from fusefs import effects, protocol
from fusefs.backup import Backup, Backups, Held, Incoming
from fusefs.kept import KeptGenerations
from fusefs.snapshot import Snapshot, seal
from fusefs.usage import Usage
from fusefs.volume import Volume
from fusefs.volumes import rotations

if TYPE_CHECKING:
    from collections.abc import Callable

VOLUME = "v"


class HeldWorld(KeeperWorld):
    """A keeper, a node server, and what is on its way between them.

    Attributes:
        store: What the node server holds.
        told: The newest generation of which the node server knows that it is acknowledged.
        asked: The generation that it waits for, None when it waits for none.
    """

    def __init__(self, files: Files) -> None:
        self.store = Backups()
        self.to_node: deque[tuple[protocol.KeeperMessage, list[int]]] = deque()
        self.to_keeper: deque[tuple[protocol.Rotate, int]] = deque()
        self.device = os.open(os.devnull, os.O_RDWR)
        self.told = 1
        self.asked: int | None = None
        super().__init__(files)
        self.read_all()

    # The keeper's side

    @override
    def _carry_out_one(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.Attach):
            self.announce()
        if isinstance(effect, effects.Answer) and self.volume.phase == "notifying":
            self._say_acknowledged(finished=False)
            if effect.ticket != effects.NOBODY:
                self._say(protocol.Done(effect.ticket.request))
        if not isinstance(effect, effects.Answer) or effect.ticket != effects.NOBODY:
            super()._carry_out_one(effect)
        if effect == effects.EndTouch(finished=True):
            self._say_acknowledged(finished=True)

    def _say_acknowledged(self, *, finished: bool) -> None:
        self._say(protocol.Acknowledged(VOLUME, self.volume.acknowledged, finished))

    def announce(self) -> None:
        """Say all that is to be held, as a host does."""
        plans = {each.generation: each.plan for each in self.volume.under_way()}
        numbers = self.kept.generations()
        generations = tuple(
            protocol.Generation(number, plans.get(number), self.kept.digest(number))
            for number in numbers
        )
        backup = protocol.VolumeBackup(
            VOLUME, "/target", 0, b"", self.volume.acknowledged, generations, b"", b""
        )
        self._say(protocol.Hold(backup), self.device, self.page)
        for number in numbers:
            self._say(protocol.HoldGeneration(VOLUME, number), self.kept.descriptor(number))

    def _say(self, message: protocol.KeeperMessage, *descriptors: int) -> None:
        self.to_node.append((message, [os.dup(fd) for fd in descriptors]))

    @override
    def _hear(self) -> None:
        before = set(self.kept.generations())
        super()._hear()
        gone = before.difference(self.kept.generations())
        if gone:
            self._say(protocol.Released(VOLUME, tuple(gone)))

    def keeper_reads(self) -> None:
        """Let the keeper take the first request."""
        message, fd = self.to_keeper.popleft()
        previous = self.volume.newest
        if message.generation <= previous:
            os.close(fd)
            self._say(protocol.Refused(message.generation, "InvalidMessage", "not newer"))
            return
        self.kept.add(message.generation, fd, message.digest)
        ticket = effects.Ticket(1, message.generation)
        self.answers.pop(ticket, None)  # one that was lost with a keeper before
        rotation = effects.Rotation(message.generation, previous, message.plan, ticket)
        self.carry_out(self.volume.rotate(rotation))

    # The node server's side

    @override
    def rotate(self, files: Files) -> effects.Ticket:
        """Seal the next generation, and send it."""
        sealed = seal(specs(files), previous=self.newest, now_ns=1)
        if self.newest:
            self.newest.close()
        self.newest = sealed.snapshot
        self.asked = number = sealed.snapshot.generation
        self.contents[number] = files
        digest = sealed.snapshot.digest
        message = protocol.Rotate(number, VOLUME, number, sealed.plan, b"", digest)
        self.store.rotating(message, sealed.snapshot.fd)
        self.to_keeper.append((message, os.dup(sealed.snapshot.fd)))
        return effects.Ticket(1, number)

    def node_reads(self) -> None:
        """Let the node server take the first thing that the keeper said."""
        message, descriptors = self.to_node.popleft()
        match message:
            case protocol.Done(request=number):
                assert number >= self.told
                self.told = number
                self.asked = None if self.asked == number else self.asked
            case protocol.Refused(request=number):
                self.store.refused(protocol.Rotate(number, VOLUME, number, b"", b""))
            case protocol.Hold() | protocol.HoldGeneration() | protocol.Acknowledged():
                self.store.take(message, descriptors)
            case protocol.Released():
                self.store.take(message, descriptors)
        for fd in descriptors:
            os.close(fd)

    def read_all(self) -> None:
        """Let the node server take everything."""
        while self.to_node:
            self.node_reads()

    @override
    def choices(self) -> list[Callable[[], None]]:
        found = super().choices()
        if self.to_node:
            found.append(self.node_reads)
        if self.to_keeper:
            found.append(self.keeper_reads)
        return found

    # Deaths

    def _lose_requests(self) -> None:
        while self.to_keeper:
            os.close(self.to_keeper.popleft()[1])
        self.asked = None

    def kill_keeper(self) -> None:
        """Kill the keeper with its worker; its successor is given everything back."""
        self.read_all()
        self._lose_requests()
        self.store.begin_session()
        [backup] = self.store
        self._adopt(_travelled(backup))
        backup.confirmed = True
        self._follow()

    def hand_over(self) -> None:
        """Let another keeper take everything from this one; the node server comes to it later."""
        self.read_all()
        self._lose_requests()
        self.announce()
        incoming, whole = Incoming(), None
        while self.to_node:
            message, descriptors = self.to_node.popleft()
            match message:
                case protocol.Hold(volume=volume):
                    incoming.announce(volume, descriptors)
                case protocol.HoldGeneration(generation=generation):
                    whole = incoming.add(VOLUME, generation, descriptors)
        assert whole is not None
        self._adopt(whole)
        self._register()

    def break_session(self) -> None:
        """Lose all that is on its way; the same node server comes back to the same keeper."""
        while self.to_node:
            for fd in self.to_node.popleft()[1]:
                os.close(fd)
        self._lose_requests()
        self._register()

    def kill_node(self) -> None:
        """Kill the node server with all that it holds; another one starts."""
        self.store.close()
        lost = [message.generation for message, _ in self.to_keeper]
        for number in lost:  # nobody has it
            del self.contents[number]
        self.break_session()

    def _register(self) -> None:
        self.store.begin_session()
        self.announce()
        self.read_all()
        [backup] = self.store
        assert backup.confirmed
        for number in backup.lacking():
            held = backup.generations[number]
            plan = held.plan or b""
            message = protocol.Rotate(number, VOLUME, number, plan, b"", held.digest)
            self.to_keeper.append((message, os.dup(held.fd)))
        self._follow()

    def _follow(self) -> None:
        """Take the newest generation that is held for the newest that there is."""
        [backup] = self.store
        if self.newest:
            self.newest.close()
        held = backup.generations[max(backup.generations)]
        self.newest = Snapshot.map(os.dup(held.fd), held.digest)
        assert self.newest.generation == max(self.contents), "one is lost"

    def _adopt(self, backup: Backup) -> None:
        """Become a keeper that goes on with the volume."""
        if self.worker:
            self.worker.close()
        self.worker = self.touch = None
        self.timers.clear()
        self.kept.close()
        os.close(self.page)
        assert Usage.is_page(backup.usage)
        self.page = os.dup(backup.usage)
        self.kept = KeptGenerations(clock=lambda: self.now)
        for number, held in sorted(backup.generations.items()):
            self.kept.add(number, os.dup(held.fd), held.digest)
        self.volume = Volume.adopted(backup.acknowledged, rotations(backup))
        self.kept.supersede(self.volume.acknowledged)
        backup.close()
        self.carry_out(self.volume.begin())

    @override
    def close(self) -> None:
        self.read_all()
        self._lose_requests()
        self.store.close()
        os.close(self.device)
        super().close()


def _travelled(backup: Backup) -> Backup:
    """Return what a keeper makes of a volume that it is given back."""
    incoming, whole = Incoming(), None
    incoming.announce(backup.announcement(), [os.dup(backup.device), os.dup(backup.usage)])
    for number, held in sorted(backup.generations.items()):
        assert isinstance(held, Held)
        whole = incoming.add(VOLUME, number, [os.dup(held.fd)])
    assert whole is not None
    return whole

"""What node server and keeper hold for each other, so that a mount outlives either of them.

A FUSE connection lives while some process holds its device. The node server holds the device of
every volume that is shown, and every generation that the keeper keeps; what it has sent and not
heard of yet it holds as well. A keeper that starts anew gets all of it back.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from typing import Final, Self

import attrs

from fusefs import protocol
from fusefs.errors import InvalidMessage
from fusefs.usage import MAX_GENERATIONS

log = logging.getLogger(__name__)

DESCRIPTORS: Final = 2  # of a volume: its FUSE device and its page of counts


@attrs.define
class Held:
    """One generation; `plan` leads to it, None when it is not known or not needed."""

    fd: int
    plan: bytes | None = attrs.field(repr=False)
    digest: bytes = b""


@attrs.define(kw_only=True)
class Backup:
    """One volume, with descriptors that belong to this object.

    Attributes:
        device: The FUSE device.
        usage: The page of counts.
        acknowledged: The newest generation that every new open sees.
        finished: Whether the plan that led to it is over and done with.
        generations: What is held, by number.
        awaited: Generations that were announced and have not come yet.
        served: The newest generation that the keeper of this session is known to have.
        confirmed: Whether it is known to have the volume.
    """

    volume_id: str
    target: str
    slot: int
    record: bytes = attrs.field(repr=False)
    init_request: bytes = attrs.field(repr=False)
    init_reply: bytes = attrs.field(repr=False)
    selinux_context: str
    device: int
    usage: int
    acknowledged: int
    finished: bool = True
    generations: dict[int, Held] = attrs.field(factory=dict)
    awaited: dict[int, protocol.Generation] = attrs.field(factory=dict, repr=False)
    served: int = 0
    confirmed: bool = True

    @classmethod
    def announced(cls, volume: protocol.VolumeBackup, descriptors: list[int]) -> Self:
        """Take what announces a volume; its descriptors are taken out of the list.

        Raises:
            InvalidMessage: It cannot be served from what is announced.
        """
        plans = {generation.number: generation.plan for generation in volume.generations}
        unplanned = [number for number, plan in plans.items() if plan is None]
        if (
            len(descriptors) != DESCRIPTORS
            or not len(volume.generations) == len(plans) <= MAX_GENERATIONS
            or min(plans, default=0) < 1
            or volume.acknowledged not in plans
            or max(unplanned, default=0) > volume.acknowledged
        ):
            message = "a backup has a device, a page, and generations with a plan for each new one"
            raise InvalidMessage(message)
        usage, device = descriptors.pop(), descriptors.pop()
        return cls(
            volume_id=volume.volume_id,
            target=volume.target,
            slot=volume.slot,
            record=volume.record,
            init_request=volume.init_request,
            init_reply=volume.init_reply,
            selinux_context=volume.selinux_context,
            device=device,
            usage=usage,
            acknowledged=volume.acknowledged,
            finished=plans[volume.acknowledged] is None,
            awaited={generation.number: generation for generation in volume.generations},
            served=max(plans),
        )

    def announcement(self) -> protocol.VolumeBackup:
        """Return what announces this volume: with the plans of what is not finished."""
        return protocol.VolumeBackup(
            volume_id=self.volume_id,
            target=self.target,
            slot=self.slot,
            record=self.record,
            acknowledged=self.acknowledged,
            generations=tuple(
                protocol.Generation(
                    number, held.plan if number in self.unfinished else None, held.digest
                )
                for number, held in sorted(self.generations.items())
            ),
            init_request=self.init_request,
            init_reply=self.init_reply,
            selinux_context=self.selinux_context,
        )

    @property
    def unfinished(self) -> list[int]:
        """Generations whose plan has not been carried out to its end, oldest first."""
        return self.above(self.acknowledged if self.finished else self.acknowledged - 1)

    def lacking(self) -> list[int]:
        """Return the generations that the keeper does not have and can be led to, oldest first."""
        found = self.above(self.served)
        planned = [self.generations[number].plan is not None for number in found]
        return found if all(planned) else []

    @property
    def identity(self) -> tuple[int, int]:
        """What tells this volume from a later one of the same name: its page of counts."""
        found = os.fstat(self.usage)
        return found.st_dev, found.st_ino

    def above(self, generation: int) -> list[int]:
        """Return the generations held that are newer than this one, oldest first."""
        return [number for number in sorted(self.generations) if number > generation]

    def add(self, generation: int, held: Held) -> None:
        """Hold a generation, whose descriptor belongs to this object from now on."""
        self.drop([generation])
        self.generations[generation] = held

    def drop(self, generations: Iterable[int]) -> None:
        """Let go of generations."""
        for number in generations:
            held = self.generations.pop(number, None)
            if held is not None:
                os.close(held.fd)
                held.fd = -1  # somebody may be about to send it, and the number be given anew

    def close(self) -> None:
        """Let go of the volume; if nobody else holds its device, the mount dies."""
        self.drop(list(self.generations))
        os.close(self.device)
        os.close(self.usage)
        self.device = self.usage = -1


class Incoming:
    """Volumes that have been announced and of which not every generation has come yet."""

    def __init__(self) -> None:
        """Start with none."""
        self._volumes: dict[str, Backup] = {}

    def announce(self, volume: protocol.VolumeBackup, descriptors: list[int]) -> None:
        """Begin with a volume; its descriptors are taken out of the list.

        Raises:
            InvalidMessage: It cannot be served from what is announced.
        """
        backup = Backup.announced(volume, descriptors)
        self._forget(volume.volume_id)
        self._volumes[volume.volume_id] = backup

    def add(self, volume_id: str, generation: int, descriptors: list[int]) -> Backup | None:
        """Take a generation in; return the volume, which is the caller's, once it is complete.

        Raises:
            InvalidMessage: It was not announced, or does not come with one descriptor.
        """
        backup = self._volumes.get(volume_id)
        if backup is None or generation not in backup.awaited or len(descriptors) != 1:
            message = f"generation {generation} of volume {volume_id!r} was not announced"
            raise InvalidMessage(message)
        announced = backup.awaited.pop(generation)
        backup.add(generation, Held(descriptors.pop(), announced.plan, announced.digest))
        return None if backup.awaited else self._volumes.pop(volume_id)

    def close(self) -> None:
        """Let go of all."""
        for volume_id in list(self._volumes):
            self._forget(volume_id)

    def _forget(self, volume_id: str) -> None:
        backup = self._volumes.pop(volume_id, None)
        if backup is not None:
            backup.close()


class Backups:
    """What a node server holds of all volumes. It outlives the sessions with keepers."""

    def __init__(self) -> None:
        """Start with none."""
        self._volumes: dict[str, Backup] = {}
        self._incoming = Incoming()

    def __len__(self) -> int:
        """Return how many volumes are held."""
        return len(self._volumes)

    def __iter__(self) -> Iterator[Backup]:
        """Iterate over a copy, so that volumes may come and go meanwhile."""
        return iter(list(self._volumes.values()))

    def begin_session(self) -> None:
        """Forget what the keeper before had: this one has what it says."""
        self._incoming.close()
        for backup in self._volumes.values():
            backup.confirmed = False

    def take(self, notice: protocol.KeeperNotice, descriptors: list[int]) -> None:
        """Do as the keeper says; descriptors that are kept are taken out of the list.

        Raises:
            InvalidMessage: The notice does not fit what was announced.
        """
        match notice:
            case protocol.Hold(volume=volume):
                self._incoming.announce(volume, descriptors)
            case protocol.HoldGeneration(volume_id=volume_id, generation=generation):
                backup = self._incoming.add(volume_id, generation, descriptors)
                if backup is not None:
                    self._replace(backup)
            case protocol.Acknowledged():
                self._acknowledge(notice)
            case protocol.Released(volume_id=volume_id, generations=generations):
                if volume_id in self._volumes:
                    self._volumes[volume_id].drop(generations)
            case protocol.LetGo(volume_id=volume_id):
                self.let_go(volume_id)
            case protocol.Dismissed():
                self.close()

    def _replace(self, backup: Backup) -> None:
        """Hold what the keeper has; what it lacks of it stays, to be sent again."""
        known = self._volumes.get(backup.volume_id)
        if known is not None:
            if known.identity == backup.identity:
                for number in known.above(backup.served):
                    backup.add(number, known.generations.pop(number))
                    backup.record = known.record
            known.close()
        self._volumes[backup.volume_id] = backup

    def _acknowledge(self, notice: protocol.Acknowledged) -> None:
        backup = self._volumes.get(notice.volume_id)
        if backup is not None and notice.generation >= backup.acknowledged:
            backup.acknowledged = notice.generation
            backup.finished = notice.finished

    def rotating(self, message: protocol.Rotate, fd: int) -> bool:
        """Hold a generation that is about to be sent: nobody knows when it arrives.

        Returns:
            False when it is none that a keeper would take: it is not newer than what is held.
        """
        backup = self._volumes.get(message.volume_id)
        if backup is None or backup.above(message.generation - 1):
            return False
        backup.add(message.generation, Held(os.dup(fd), message.plan, message.digest))
        backup.record = message.record
        return True

    def refused(self, message: protocol.Rotate) -> None:
        """Let go of a generation that the keeper did not take."""
        backup = self._volumes.get(message.volume_id)
        if backup is not None and message.generation > backup.acknowledged:
            backup.drop([message.generation])

    def recorded(self, volume_id: str, record: bytes) -> None:
        """Note the record that the keeper has."""
        if volume_id in self._volumes:
            self._volumes[volume_id].record = record

    def let_go(self, volume_id: str) -> None:
        """Let go of a volume."""
        backup = self._volumes.pop(volume_id, None)
        if backup is not None:
            backup.close()

    def close(self) -> None:
        """Let go of all: a mount that no keeper serves dies with it."""
        self._incoming.close()
        for volume_id in list(self._volumes):
            self.let_go(volume_id)

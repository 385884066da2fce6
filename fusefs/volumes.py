"""The volumes of a keeper: how they come to be, where they live, and what must not collide."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

import attrs

from fusefs import effects, filesystems, initmsg, protocol, selinux
from fusefs.backup import Backup
from fusefs.basehost import Host, Owner, Place
from fusefs.config import MAX_VOLUMES, Config
from fusefs.connection import Connection
from fusefs.errors import (
    InvalidMessage,
    InvalidSnapshot,
    OverBudget,
    TargetRefused,
    VolumeFailed,
    VolumeUnknown,
)
from fusefs.filesystems import Choice
from fusefs.host import Adopted, VolumeHost
from fusefs.kept import KeptGenerations
from fusefs.loop import Loop
from fusefs.target import KubeletRoot, Target
from fusefs.tmpfshost import TmpfsHost
from fusefs.usage import Usage
from fusefs.volume import Volume

log = logging.getLogger(__name__)


class Volumes:
    """All volumes of a node, by their id."""

    def __init__(
        self,
        config: Config,
        root: KubeletRoot,
        loop: Loop,
        private: str,
        *,
        answer: Callable[[effects.Ticket, Exception | None], None],
        announce: Callable[[protocol.KeeperNotice, tuple[int, ...]], None],
    ) -> None:
        """Start with none.

        Args:
            config: How the keeper was started.
            root: Where targets may be.
            loop: The keeper's loop.
            private: The directory of the private mounts.
            answer: Answers a request.
            announce: Tells what is to be held of a volume.
        """
        self._config = config
        self._root = root
        self._loop = loop
        self._private = private
        self._owner = Owner(
            answer=answer,
            announce=announce,
            closed=self._closed,
            gone=self._gone,
        )
        self._volumes: dict[str, Host] = {}
        self._slots: set[int] = set()  # each while a process with its uid lives
        self._frozen: Callable[[], None] | None = None

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._volumes)

    def get(self, volume_id: str) -> Host | None:
        """Return a volume, if it is published."""
        return self._volumes.get(volume_id)

    def known(self, volume_id: str) -> Host:
        """Return a volume that is published.

        Raises:
            VolumeUnknown: It is not.
        """
        if volume_id not in self._volumes:
            message = f"volume {volume_id!r} is not published"
            raise VolumeUnknown(message)
        return self._volumes[volume_id]

    def shown(self) -> Iterator[Host]:
        """Iterate over a copy of those that their targets show."""
        return iter([host for host in self._volumes.values() if host.state.is_shown])

    def held(self) -> list[VolumeHost]:
        """Return those that somebody must go on serving: a tmpfs needs nobody."""
        return [host for host in self.shown() if isinstance(host, VolumeHost)]

    def at_rest(self) -> bool:
        """Return whether every volume is shown and no rotation is under way."""
        hosts = self._volumes.values()
        return all(host.state.is_shown and host.state.phase == "serving" for host in hosts)

    def check_target_is_free(self, volume_id: str, target: str) -> None:
        """Refuse a target that another volume is published at."""
        for host in self._volumes.values():
            if host.target_path == target and host.volume_id != volume_id:
                text = f"another volume, {host.volume_id!r}, is published at {target!r}"
                raise TargetRefused(text)

    def begin(
        self, message: protocol.Publish, descriptors: list[int], ticket: effects.Ticket
    ) -> None:
        """Begin with a new volume; `ticket` is answered when the target shows it."""
        if self._frozen is not None:
            text = "this keeper ends and takes no volume; ask again when its successor serves"
            raise VolumeFailed(text)
        self.check_target_is_free(message.volume_id, message.target)
        with contextlib.ExitStack() as undo:
            kept = KeptGenerations()
            undo.callback(kept.close)
            take_snapshot(kept, message.generation, descriptors, message.digest)
            held = self._root.target(
                message.target, volume_id=message.volume_id, driver=self._config.driver
            )
            undo.callback(held.close)
            place = attrs.evolve(
                self._free_place(),
                user_namespace=message.user_namespace,
                selinux_context=_label(message.selinux_context),
            )
            host: Host
            match self._choose(message, held, place, kept):
                case Choice(filesystem="tmpfs", reason=reason, found=found):
                    host = TmpfsHost(
                        self._loop,
                        place,
                        held,
                        kept,
                        self._owner,
                        volume_id=message.volume_id,
                        record=message.record,
                        state=Volume(message.generation, ticket),
                        reason=reason,
                        adopted=found,
                    )
                case _:
                    host = VolumeHost(
                        self._loop,
                        place,
                        held,
                        kept,
                        self._owner,
                        volume_id=message.volume_id,
                        record=message.record,
                        state=Volume(message.generation, ticket),
                    )
            undo.pop_all()
        self._begin(host)

    def _choose(
        self, message: protocol.Publish, held: Target, place: Place, kept: KeptGenerations
    ) -> Choice:
        """Return which file system a new volume gets."""
        taken = sum(host.memory_bytes for host in self._volumes.values())
        budget = self._config.memory_budget
        choice = filesystems.choose(
            filesystems.Request(
                wanted=message.filesystem,
                found=held.shows_tmpfs(),
                needed_bytes=filesystems.WORKER_BYTES + kept.size,
                free_bytes=None if budget is None else budget - taken,
                required_flags=place.required_flags
                | (initmsg.FUSE_ALLOW_IDMAP if place.user_namespace else 0),
            ),
            place.private,
        )
        if choice.reason:
            log.warning(
                "the volume is a tmpfs: %s", choice.reason, extra={"volume_id": message.volume_id}
            )
        return choice

    def adopt(
        self, backup: Backup, standing_by: Callable[[bool], None] | None = None
    ) -> VolumeHost:
        """Go on with a volume that a keeper before served. The backup stays the caller's.

        Args:
            backup: Everything of the volume.
            standing_by: Given while that keeper serves: called when a worker stands by, with True,
                or cannot serve, with False.

        Raises:
            KeeperError: It cannot be; nothing of it was touched.
        """
        if backup.volume_id in self._volumes:
            message = f"volume {backup.volume_id!r} is served already"
            raise VolumeFailed(message)
        self.check_target_is_free(backup.volume_id, backup.target)
        if not Usage.is_page(backup.usage):
            message = f"the page of counts of volume {backup.volume_id!r} is none of ours"
            raise InvalidMessage(message)
        if Usage.is_frozen(backup.usage):
            # The kernel opens its files by itself, and would show old content after a rotation.
            message = f"volume {backup.volume_id!r} has been frozen; publish it again"
            raise VolumeFailed(message)
        with contextlib.ExitStack() as undo:
            kept = KeptGenerations()
            undo.callback(kept.close)
            for number, generation in sorted(backup.generations.items()):
                take_snapshot(kept, number, [os.dup(generation.fd)], generation.digest)
            held = self._root.target(
                backup.target, volume_id=backup.volume_id, driver=self._config.driver
            )
            undo.callback(held.close)
            usage, device = os.dup(backup.usage), os.dup(backup.device)
            undo.callback(os.close, usage)
            undo.callback(os.close, device)
            place = attrs.evolve(
                self._free_place(backup.slot), selinux_context=_label(backup.selinux_context)
            )
            connection = Connection.adopt(
                place.private,
                device,
                init_request=backup.init_request,
                first_reply=backup.init_reply,
                target=held,
                selinux_context=place.selinux_context,
            )
            host = VolumeHost(
                self._loop,
                place,
                held,
                kept,
                self._owner,
                volume_id=backup.volume_id,
                record=backup.record,
                state=Volume.adopted(backup.acknowledged, rotations(backup)),
                adopted=Adopted(connection=connection, usage=usage, standing_by=standing_by),
            )
            undo.pop_all()
        self._begin(host)
        return host

    def _begin(self, host: Host) -> None:
        self._slots.add(host.place.slot)
        self._volumes[host.volume_id] = host
        host.begin()

    def _free_place(self, wanted: int | None = None) -> Place:
        """Return the place `wanted` if it is free, so that its uid stays; else the lowest one."""
        numbers = (
            range(MAX_VOLUMES)
            if wanted not in range(MAX_VOLUMES)
            else (wanted, *range(MAX_VOLUMES))
        )
        slot = next((number for number in numbers if number not in self._slots), None)
        if slot is None:
            message = f"this node has {MAX_VOLUMES} volumes, which is the most"
            raise OverBudget(message)
        return Place(
            slot=slot,
            private=f"{self._private}/{slot}",
            uid=self._config.worker_uid_base + slot,
            required_flags=self._config.required_flags,
            takeover=self._config.takeover,
            per_second=self._config.per_second,
        )

    @property
    def freezes(self) -> bool:
        """Whether volumes are being frozen: there is no way back."""
        return self._frozen is not None

    def freeze(self, frozen: Callable[[], None]) -> None:
        """Leave every volume readable without any process, as its content is now.

        `frozen` is called when there is no volume and no process of one any more.
        """
        log.warning("freezing %d volumes", len(self._volumes))
        self._frozen = frozen
        for host in list(self._volumes.values()):
            host.freeze()
        self._check_frozen()

    def _check_frozen(self) -> None:
        if self._frozen is not None and not self._slots:
            self._frozen()

    def _closed(self, host: Host) -> None:
        if self._volumes.get(host.volume_id) is host:
            del self._volumes[host.volume_id]

    def _gone(self, host: Host) -> None:
        self._slots.remove(host.place.slot)
        self._check_frozen()


def _label(context: str) -> str:
    return selinux.context_of(context, on=selinux.is_on())


def take_snapshot(
    kept: KeptGenerations, generation: int, descriptors: list[int], digest: bytes
) -> None:
    """Keep the snapshot that came with a request; its descriptor is taken out of the list.

    Raises:
        InvalidMessage: There is not just one, or it is none.
        OverBudget: The node does not let so much memory be locked.
    """
    if len(descriptors) != 1 or generation < 1:
        message = "one snapshot and a generation from 1 on must come with this request"
        raise InvalidMessage(message)
    try:
        kept.add(generation, descriptors.pop(), digest)
    except InvalidSnapshot as error:
        raise InvalidMessage(str(error)) from error


def rotations(backup: Backup) -> list[effects.Rotation]:
    """Return what was on its way in, to be brought in once more."""
    found = []
    for number in backup.unfinished:
        plan = backup.generations[number].plan
        previous = max((one for one in backup.generations if one < number), default=0)
        assert plan is not None  # noqa: S101 - checked when it was announced
        found.append(effects.Rotation(number, previous, plan, effects.NOBODY))
    return found

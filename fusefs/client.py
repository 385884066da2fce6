"""The node server's side of the control socket, in trio."""

import contextlib
import itertools
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Final

import trio

from fusefs import errors, packets, protocol
from fusefs.backup import Backup, Backups
from fusefs.errors import (
    InvalidMessage,
    InvalidSnapshot,
    KeeperError,
    KeeperUnavailable,
    Superseded,
    TargetRefused,
    VolumeUnknown,
)
from fusefs.published import DEFAULTS, PublishedVolume, Shown, VolumeOptions
from fusefs.snapshot import Sealed, Snapshot

log = logging.getLogger(__name__)

REGISTER_S: Final = 60.0  # everything is exchanged meanwhile
_ERRORS: Final[dict[str, type[KeeperError]]] = {
    kind.__name__: kind for kind in KeeperError.__subclasses__()
}


class _Pending:
    """A request under way."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.error: Exception | None = None
        self.answer: protocol.Published | protocol.Volumes | protocol.SnapshotOf | None = None
        self.descriptors: list[int] = []

    def close_descriptors(self) -> None:
        """Close what came with an answer that nobody takes."""
        while self.descriptors:
            os.close(self.descriptors.pop())


class KeeperClient:
    """A session with the keeper. Every method raises `KeeperUnavailable` on a lost connection."""

    def __init__(self, connection: socket.socket, backups: Backups) -> None:
        """Use `connect` instead."""
        self._connection = connection
        self._backups = backups
        self._dismissed = False
        self._requests = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._sending = trio.Lock()
        self._lost = trio.Event()

    async def publish(
        self,
        volume_id: str,
        target: str,
        sealed: Sealed,
        *,
        record: bytes,
        options: VolumeOptions = DEFAULTS,
    ) -> Shown:
        """Mount a volume; afterwards `target` shows `sealed`.

        Published at this target already is fine, and leaves the content as it is.

        Raises:
            KeeperError: The keeper's answer; nothing is left at the target.
        """
        request = next(self._requests)
        generation = sealed.snapshot.generation
        message = protocol.Publish(
            request,
            volume_id,
            target,
            generation,
            sealed.plan,
            record,
            options.filesystem,
            options.user_namespace,
            options.selinux_context,
            sealed.snapshot.digest,
        )
        pending = await self._ask(message, [sealed.snapshot.fd])
        self._backups.recorded(volume_id, record)
        answer = pending.answer
        if not isinstance(answer, protocol.Published):
            return Shown(filesystem="fuse")  # a keeper of an older release says no more
        return Shown(filesystem=answer.filesystem, reason=answer.reason, restart=answer.restart)

    async def rotate(self, volume_id: str, sealed: Sealed, *, record: bytes) -> None:
        """Bring a generation in; afterwards every new open and walk sees it.

        Raises:
            VolumeUnknown: The volume is not published.
        """
        request = next(self._requests)
        generation = sealed.snapshot.generation
        digest = sealed.snapshot.digest
        await self._rotate(
            protocol.Rotate(request, volume_id, generation, sealed.plan, record, digest),
            sealed.snapshot.fd,
        )

    async def _rotate(self, message: protocol.Rotate, snapshot: int) -> None:
        """Hold what is sent from before it is sent: a keeper may die with it."""
        held = self._backups.rotating(message, snapshot)
        try:
            await self._ask(message, [snapshot])
        except KeeperError:
            if held:
                self._backups.refused(message)
            raise
        self._backups.recorded(message.volume_id, message.record)

    async def update_record(self, volume_id: str, record: bytes) -> None:
        """Replace the record of a volume.

        Raises:
            VolumeUnknown: The volume is not published.
        """
        await self._ask(protocol.UpdateRecord(next(self._requests), volume_id, record))
        self._backups.recorded(volume_id, record)

    async def unpublish(self, volume_id: str, target: str) -> None:
        """Take a volume away and remove the target. One that is unknown, or gone, is fine.

        Raises:
            TargetRefused: The target is not a place for volumes, or holds what is not ours.
        """
        await self._ask(protocol.Unpublish(next(self._requests), volume_id, target))

    async def volumes(self, *, snapshots: bool = True) -> list[PublishedVolume]:
        """Return everything that the keeper shows at a target."""
        pending = await self._ask(protocol.ListVolumes(next(self._requests)))
        states = pending.answer.volumes if isinstance(pending.answer, protocol.Volumes) else ()
        found = []
        with contextlib.ExitStack() as undo:
            for state in states:
                snapshot = await self._snapshot(state.volume_id) if snapshots else None
                if snapshot is not None:
                    undo.callback(snapshot.close)
                found.append(
                    PublishedVolume(
                        volume_id=state.volume_id,
                        target=state.target,
                        generation=snapshot.generation if snapshot else state.generation,
                        record=state.record,
                        worker_pid=state.worker_pid,
                        filesystem=state.filesystem,
                        reason=state.reason,
                        snapshot=snapshot,
                    )
                )
            undo.pop_all()
        return found

    async def _snapshot(self, volume_id: str) -> Snapshot | None:
        """Return the newest snapshot of a volume, None when it is gone meanwhile."""
        try:
            pending = await self._ask(protocol.FetchSnapshot(next(self._requests), volume_id))
            assert isinstance(pending.answer, protocol.SnapshotOf)  # noqa: S101 - what was asked for
            return Snapshot.map(pending.descriptors.pop(), pending.answer.digest)
        except VolumeUnknown:
            return None
        except (InvalidSnapshot, IndexError):
            log.exception("the keeper sent a broken snapshot", extra={"volume_id": volume_id})
            return None

    async def wait_lost(self) -> None:
        """Return when the connection is lost.

        Raises:
            Superseded: A newer node server is obeyed instead.
        """
        await self._lost.wait()
        if self._dismissed:
            raise self._loss()

    @property
    def keeper_pid(self) -> int:
        """The process that listens at the socket."""
        data = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(data[:4], "little")

    async def _register(self) -> None:
        """Become the session that is obeyed, hold what it has, and give back what it lacks."""
        self._backups.begin_session()
        with trio.move_on_after(REGISTER_S):
            await self._ask(protocol.Register(next(self._requests)))
            for backup in self._backups:
                if backup.confirmed:
                    await self._repeat_rotations(backup)
                else:
                    await self._give_back(backup)
            return
        message = f"the keeper took more than {REGISTER_S:.0f} s to register this node server"
        raise KeeperUnavailable(message)

    async def _give_back(self, backup: Backup) -> None:
        """Let the keeper go on with a volume; one that it refuses is let go."""
        message = protocol.GiveBack(next(self._requests), backup.announcement())
        try:
            await self._ask(message, [backup.device, backup.usage])
            for number, held in sorted(backup.generations.items()):
                part = protocol.GiveBackGeneration(next(self._requests), backup.volume_id, number)
                await self._ask(part, [held.fd])
        except Superseded:
            raise
        except KeeperError as error:
            log.error(  # noqa: TRY400 - the node's state, not a defect
                "a volume is not served any longer: %s", error, extra=_fields(backup)
            )
            self._backups.let_go(backup.volume_id)
            return
        backup.confirmed = True

    async def _repeat_rotations(self, backup: Backup) -> None:
        """Send again what the keeper does not have, in order; a gap ends it."""
        for number in backup.lacking():
            held = backup.generations.get(number)
            if held is None:  # let go of meanwhile
                return
            message = protocol.Rotate(
                next(self._requests),
                backup.volume_id,
                number,
                held.plan or b"",
                backup.record,
                held.digest,
            )
            try:
                await self._ask(message, [held.fd])
            except Superseded:
                raise
            except KeeperError as error:
                log.warning("a generation is not taken: %s", error, extra=_fields(backup))
                self._backups.refused(message)

    async def _ask(
        self, message: protocol.NodeMessage, descriptors: Iterable[int] = ()
    ) -> _Pending:
        pending = self._pending[message.request] = _Pending()
        with contextlib.ExitStack() as undo:
            undo.callback(pending.close_descriptors)
            try:
                await self._send(message, list(descriptors))
                await pending.answered.wait()
            finally:
                del self._pending[message.request]
            if pending.error is not None:
                raise pending.error
            undo.pop_all()
        return pending

    async def _send(self, message: protocol.Message, descriptors: list[int]) -> None:
        async with self._sending:
            while True:
                if self._lost.is_set():
                    raise self._loss()
                try:
                    packets.send(self._connection, message, descriptors)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._connection)
                except OSError as error:
                    raise self._loss() from error
                else:
                    return

    async def _receive_all(self) -> None:
        """Hand each answer to who waits for it, until the connection is lost."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._connection)
                received = packets.receive(self._connection, protocol.AT_NODE)
                if received is None:
                    return
                self._dispatch(*received)
                if self._dismissed:
                    return
        except (ConnectionError, InvalidMessage):
            log.exception("the connection to the keeper is given up")
        except trio.Cancelled:
            self._receive_rest()
            raise
        finally:
            self._lost.set()
            for pending in self._pending.values():
                if not pending.answered.is_set():
                    pending.error = self._loss()
                    pending.answered.set()

    def _receive_rest(self) -> None:
        """Take what has come already: a request may be the first to find that the keeper is dead.

        Its last words may say what it has acknowledged.
        """
        with contextlib.suppress(OSError, InvalidMessage):
            while (received := packets.receive(self._connection, protocol.AT_NODE)) is not None:
                self._dispatch(*received)

    def _dispatch(self, message: protocol.KeeperMessage, descriptors: list[int]) -> None:
        try:
            if isinstance(message, protocol.KeeperAnswer):
                self._answered(message, descriptors)
            else:
                self._dismissed = self._dismissed or isinstance(message, protocol.Dismissed)
                self._backups.take(message, descriptors)
        finally:
            for descriptor in descriptors:  # what nobody took
                os.close(descriptor)

    def _answered(self, message: protocol.KeeperAnswer, descriptors: list[int]) -> None:
        pending = self._pending.get(message.request)
        if pending is None:  # its caller was cancelled
            return
        match message:
            case protocol.Refused():
                pending.error = _error_of(message)
            case protocol.Published() | protocol.Volumes() | protocol.SnapshotOf():
                pending.answer = message
                pending.descriptors, descriptors[:] = list(descriptors), []
        pending.answered.set()

    def _loss(self) -> KeeperUnavailable | Superseded:
        """Return why there is no session any more."""
        if self._dismissed:
            message = "a newer node server has registered"
            return Superseded(message)
        message = "the connection to the keeper was lost; is its pod running?"
        return KeeperUnavailable(message)


def _fields(backup: Backup) -> dict[str, str]:
    return {"volume_id": backup.volume_id}


def _error_of(message: protocol.Refused) -> KeeperError:
    kind = _ERRORS.get(message.error, errors.VolumeFailed)
    if kind is TargetRefused:
        return TargetRefused(message.text, layout=message.layout)
    return kind(message.text)


@contextlib.asynccontextmanager
async def connect(
    path: str, *, register: bool = True, backups: Backups | None = None
) -> AsyncIterator[KeeperClient]:
    """Open a session with the keeper that listens at `path`.

    Args:
        path: The keeper's control socket.
        register: Become the node session that is obeyed. Without it only `volumes` is answered.
        backups: What is held for the keeper; a keeper that starts anew gets it back before this
            returns. None: what it says is held for this session only.

    Raises:
        KeeperUnavailable: Nobody listens there, or nobody answers.
        Superseded: A newer node server is obeyed.
    """
    async with contextlib.AsyncExitStack() as last:
        if backups is None:
            backups = last.enter_context(contextlib.closing(Backups()))
        yield await last.enter_async_context(_session(path, backups, register=register))


@contextlib.asynccontextmanager
async def _session(path: str, backups: Backups, *, register: bool) -> AsyncIterator[KeeperClient]:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with connection:
        connection.settimeout(0)  # a keeper that hangs must not stop the caller's loop
        try:
            connection.connect(path)
        except OSError as error:
            message = f"no keeper listens at {path!r}: {error.strerror}"
            raise KeeperUnavailable(message) from error
        client = KeeperClient(connection, backups)
        failure = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client._receive_all)  # noqa: SLF001 - its other half
            try:
                if register:
                    await client._register()  # noqa: SLF001
                yield client
            except Exception as error:  # noqa: BLE001 - raised below, without a group around it
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

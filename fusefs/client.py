"""The node server's side of the control socket, in trio."""

import contextlib
import itertools
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Final

import attrs
import trio

from fusefs import errors, protocol
from fusefs.errors import (
    InvalidMessage,
    InvalidSnapshot,
    KeeperError,
    KeeperUnavailable,
    TargetRefused,
    VolumeUnknown,
)
from fusefs.snapshot import Sealed, Snapshot

log = logging.getLogger(__name__)

_ERRORS: Final[dict[str, type[KeeperError]]] = {
    kind.__name__: kind for kind in KeeperError.__subclasses__()
}


@attrs.frozen(kw_only=True)
class PublishedVolume:
    """A volume as the keeper has it.

    Attributes:
        record: What the node server that published it wanted its successor to know.
        worker_pid: None while a worker is being replaced.
        snapshot: Its newest generation; the caller closes it. None unless asked for.
    """

    volume_id: str
    target: str
    generation: int
    record: bytes
    worker_pid: int | None
    snapshot: Snapshot | None


class _Pending:
    """A request under way."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.error: Exception | None = None
        self.answer: protocol.Volumes | protocol.SnapshotOf | None = None
        self.descriptors: list[int] = []

    def close_descriptors(self) -> None:
        """Close what came with an answer that nobody takes."""
        while self.descriptors:
            os.close(self.descriptors.pop())


class KeeperClient:
    """A session with the keeper. Every method raises `KeeperUnavailable` on a lost connection."""

    def __init__(self, connection: socket.socket) -> None:
        """Use `connect` instead."""
        self._connection = connection
        self._requests = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._sending = trio.Lock()
        self._lost = trio.Event()

    async def publish(self, volume_id: str, target: str, sealed: Sealed, *, record: bytes) -> None:
        """Mount a volume; afterwards `target` shows `sealed`.

        Published at this target already is fine, and leaves the content as it is.

        Raises:
            KeeperError: The keeper's answer; nothing is left at the target.
        """
        request = next(self._requests)
        generation = sealed.snapshot.generation
        await self._ask(
            protocol.Publish(request, volume_id, target, generation, sealed.plan, record),
            [sealed.snapshot.fd],
        )

    async def rotate(self, volume_id: str, sealed: Sealed, *, record: bytes) -> None:
        """Bring a generation in; afterwards every new open and walk sees it.

        Raises:
            VolumeUnknown: The volume is not published.
        """
        request = next(self._requests)
        generation = sealed.snapshot.generation
        await self._ask(
            protocol.Rotate(request, volume_id, generation, sealed.plan, record),
            [sealed.snapshot.fd],
        )

    async def update_record(self, volume_id: str, record: bytes) -> None:
        """Replace the record of a volume.

        Raises:
            VolumeUnknown: The volume is not published.
        """
        await self._ask(protocol.UpdateRecord(next(self._requests), volume_id, record))

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
                        snapshot=snapshot,
                    )
                )
            undo.pop_all()
        return found

    async def _snapshot(self, volume_id: str) -> Snapshot | None:
        """Return the newest snapshot of a volume, None when it is gone meanwhile."""
        try:
            pending = await self._ask(protocol.FetchSnapshot(next(self._requests), volume_id))
            return Snapshot.map(pending.descriptors.pop())
        except VolumeUnknown:
            return None
        except (InvalidSnapshot, IndexError):
            log.exception("the keeper sent a broken snapshot", extra={"volume_id": volume_id})
            return None

    async def wait_lost(self) -> None:
        """Return when the connection is lost."""
        await self._lost.wait()

    @property
    def keeper_pid(self) -> int:
        """The process that listens at the socket."""
        data = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(data[:4], "little")

    async def _register(self) -> None:
        await self._ask(protocol.Register(next(self._requests)))

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
                    raise _lost()
                try:
                    protocol.send(self._connection, message, descriptors)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._connection)
                except OSError as error:
                    raise _lost() from error
                else:
                    return

    async def _receive_all(self) -> None:
        """Hand each answer to who waits for it, until the connection is lost."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._connection)
                received = protocol.receive(self._connection, protocol.AT_NODE)
                if received is None:
                    return
                self._dispatch(*received)
        except (ConnectionError, InvalidMessage):
            log.exception("the connection to the keeper is given up")
        finally:
            self._lost.set()
            for pending in self._pending.values():
                if not pending.answered.is_set():
                    pending.error = _lost()
                    pending.answered.set()

    def _dispatch(self, message: protocol.KeeperMessage, descriptors: list[int]) -> None:
        pending = self._pending.get(message.request)
        if pending is None:  # its caller was cancelled
            for descriptor in descriptors:
                os.close(descriptor)
            return
        match message:
            case protocol.Refused():
                pending.error = _error_of(message)
            case protocol.Volumes() | protocol.SnapshotOf():
                pending.answer, pending.descriptors = message, descriptors
        pending.answered.set()


def _lost() -> KeeperUnavailable:
    return KeeperUnavailable("the connection to the keeper was lost; is its pod running?")


def _error_of(message: protocol.Refused) -> KeeperError:
    kind = _ERRORS.get(message.error, errors.VolumeFailed)
    if kind is TargetRefused:
        return TargetRefused(message.text, layout=message.layout)
    return kind(message.text)


@contextlib.asynccontextmanager
async def connect(path: str, *, register: bool = True) -> AsyncIterator[KeeperClient]:
    """Open a session with the keeper that listens at `path`.

    Args:
        path: The keeper's control socket.
        register: Become the node session that is obeyed. Without it only `volumes` is answered.

    Raises:
        KeeperUnavailable: Nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with connection:
        connection.settimeout(0)  # a keeper that hangs must not stop the caller's loop
        try:
            connection.connect(path)
        except OSError as error:
            message = f"no keeper listens at {path!r}: {error.strerror}"
            raise KeeperUnavailable(message) from error
        client = KeeperClient(connection)
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

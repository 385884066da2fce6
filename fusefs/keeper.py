"""The keeper: mounts volumes, keeps their snapshots, forks and replaces their workers.

Synchronous and single-threaded on purpose (`loop`). It listens in a 0700 directory, to uid 0 only,
obeys the newest node session, and reads nothing that comes from a vault or a pod: it moves
descriptors, and passes plans and records on as bytes.
"""

import functools
import gc
import logging
import os
import resource
import signal
import socket
from pathlib import Path
from typing import Final

import attrs

from fusefs import effects, initmsg, mounts, protocol, syscalls, worker
from fusefs.errors import (
    CannotStart,
    FusefsError,
    InvalidMessage,
    InvalidSnapshot,
    KeeperError,
    OverBudget,
    Superseded,
    TargetRefused,
    VolumeUnknown,
)
from fusefs.host import Place, VolumeHost
from fusefs.kept import KeptGenerations
from fusefs.listener import Listener
from fusefs.loop import Loop
from fusefs.target import KubeletRoot

log = logging.getLogger(__name__)

MAX_VOLUMES: Final = 1000
_MAX_UID: Final = 2**32 - 2


@attrs.frozen(kw_only=True)
class Config:
    """How the keeper is started.

    Attributes:
        socket: Path of the control socket; its directory is made 0700.
        kubelet_root: kubelet's root directory.
        driver: The CSI driver name that ``vol_data.json`` must have.
        worker_uid_base: Workers get this uid and the following ones.
        required_flags: INIT flags without which no volume is mounted.
    """

    socket: str
    kubelet_root: str
    driver: str = "secrets-store.csi.k8s.io"
    worker_uid_base: int = 2_000_000_000
    required_flags: int = initmsg.FUSE_HAS_RESEND


class Session:
    """One connection to the control socket."""

    def __init__(self, number: int, connection: socket.socket) -> None:
        """Number it in the order of arrival."""
        self.number = number
        self.connection = connection


class Keeper:
    """All volumes of a node."""

    def __init__(self, config: Config, root: KubeletRoot) -> None:
        """Prepare; `serve` does the work. `root` must belong to this mount namespace."""
        self._config = config
        self._loop = Loop()
        self._volumes: dict[str, VolumeHost] = {}
        self._slots: set[int] = set()  # each while a process with its uid lives
        self._sessions: dict[int, Session] = {}
        self._obeyed = 0
        self._root = root
        self._private = str(Path(config.socket).parent / "private")
        self._listener = Listener(config.socket, self._accepted)

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        Path(self._private).mkdir(mode=0o700, parents=True, exist_ok=True)
        mounts.mount_private_root(self._private)
        worker.warm_up()
        gc.collect()
        gc.freeze()  # keeps the pages of what is imported shared with every worker
        self._handle_signals()
        self._listener.start(self._loop)
        log.info("the keeper serves", extra={"socket": self._config.socket})
        try:
            self._loop.run()
        finally:
            self._close()

    def _handle_signals(self) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._loop.watch(reading, self._loop.stop)

    def _close(self) -> None:
        """End. Mounts that pods use stay, dead: an empty directory would look like no secrets."""
        self._listener.close()
        if self._volumes:
            log.warning("the keeper ends with %d volumes mounted", len(self._volumes))
        syscalls.umount2(self._private, syscalls.MNT_DETACH)
        Path(self._private).rmdir()
        self._root.close()
        self._loop.close()

    # Sessions

    def _accepted(self, number: int, connection: socket.socket) -> None:
        session = Session(number, connection)
        self._sessions[number] = session
        self._loop.watch(connection.fileno(), functools.partial(self._session_speaks, session))

    def _session_speaks(self, session: Session) -> None:
        try:
            received = protocol.receive(session.connection, protocol.AT_KEEPER)
        except (ConnectionError, InvalidMessage) as error:
            log.warning("a session is closed: %s", error)
            received = None
        if received is None:
            self._drop(session)
            return
        message, descriptors = received
        try:
            self._handle(session, message, descriptors)
        except KeeperError as error:
            self._answer(effects.Ticket(session.number, message.request), error)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _drop(self, session: Session) -> None:
        self._sessions.pop(session.number, None)
        self._loop.unwatch(session.connection.fileno())
        session.connection.close()

    def _answer(self, ticket: effects.Ticket, error: Exception | None) -> None:
        if error is None:
            self._send(ticket, protocol.Done(ticket.request))
            return
        layout = isinstance(error, TargetRefused) and error.layout
        name = type(error).__name__
        self._send(ticket, protocol.Refused(ticket.request, name, str(error), layout))

    def _send(
        self, ticket: effects.Ticket, message: protocol.Message, descriptors: tuple[int, ...] = ()
    ) -> None:
        session = self._sessions.get(ticket.session)
        if session is None:
            return  # it asked and left
        try:
            protocol.send(session.connection, message, descriptors)
        except (ConnectionError, BlockingIOError) as error:
            log.warning("a session does not listen and is closed: %s", error)
            self._drop(session)

    # Requests. Descriptors belong to the caller; what is kept is taken out of the list.

    def _handle(
        self, session: Session, message: protocol.NodeMessage, descriptors: list[int]
    ) -> None:
        ticket = effects.Ticket(session.number, message.request)
        if isinstance(message, protocol.ListVolumes):
            self._list(ticket, snapshots=message.snapshots)
            return
        if isinstance(message, protocol.Register):
            self._obeyed = max(self._obeyed, session.number)
        if session.number != self._obeyed:
            text = "a newer node server has registered" if self._obeyed else "register first"
            raise Superseded(text)
        match message:
            case protocol.Register():
                self._answer(ticket, None)
            case protocol.Publish():
                self._publish(ticket, message, descriptors)
            case protocol.Rotate():
                self._rotate(ticket, message, descriptors)
            case protocol.UpdateRecord():
                self._known(message.volume_id).record = message.record
                self._answer(ticket, None)
            case protocol.Unpublish():
                self._unpublish(ticket, message)

    def _known(self, volume_id: str) -> VolumeHost:
        if volume_id not in self._volumes:
            message = f"volume {volume_id!r} is not published"
            raise VolumeUnknown(message)
        return self._volumes[volume_id]

    def _list(self, ticket: effects.Ticket, *, snapshots: bool) -> None:
        for host in self._volumes.values():
            if host.state.phase in ("clearing", "starting", "priming", "settling"):
                continue
            generation = host.state.newest
            state = protocol.VolumeState(
                request=ticket.request,
                volume_id=host.volume_id,
                target=host.target_path,
                generation=generation,
                record=host.record,
                worker_pid=host.worker_pid,
            )
            self._send(ticket, state, (host.kept.descriptor(generation),) if snapshots else ())
        self._answer(ticket, None)

    def _publish(
        self, ticket: effects.Ticket, message: protocol.Publish, descriptors: list[int]
    ) -> None:
        known = self._volumes.get(message.volume_id)
        if known is not None:
            if known.target_path != message.target:
                text = f"volume {message.volume_id!r} is published at {known.target_path!r}"
                raise TargetRefused(text)
            known.record = message.record
            known.publish_again(ticket)
            return
        if any(host.target_path == message.target for host in self._volumes.values()):
            text = f"another volume is published at {message.target!r}"
            raise TargetRefused(text)
        kept = self._take_snapshot(KeptGenerations(), message.generation, descriptors)
        try:
            self._check_room()
            held = self._root.target(
                message.target, volume_id=message.volume_id, driver=self._config.driver
            )
        except FusefsError:
            kept.close()
            raise
        host = VolumeHost(
            self._loop,
            self._free_place(),
            held,
            kept,
            self._answer,
            volume_id=message.volume_id,
            record=message.record,
            ticket=ticket,
            on_closed=self._closed,
            on_gone=lambda gone: self._slots.remove(gone.place.slot),
        )
        self._volumes[message.volume_id] = host
        host.begin()

    def _take_snapshot(
        self, kept: KeptGenerations, generation: int, descriptors: list[int]
    ) -> KeptGenerations:
        if len(descriptors) != 1 or generation < 1:
            message = "one snapshot and a generation from 1 on must come with this request"
            raise InvalidMessage(message)
        try:
            kept.add(generation, descriptors.pop())
        except InvalidSnapshot as error:
            raise InvalidMessage(str(error)) from error
        return kept

    def _check_room(self) -> None:
        if len(self._slots) >= MAX_VOLUMES:
            message = f"this node has {MAX_VOLUMES} volumes, which is the most"
            raise OverBudget(message)

    def _free_place(self) -> Place:
        slot = next(number for number in range(MAX_VOLUMES) if number not in self._slots)
        self._slots.add(slot)
        return Place(
            slot=slot,
            private=f"{self._private}/{slot}",
            uid=self._config.worker_uid_base + slot,
            required_flags=self._config.required_flags,
        )

    def _rotate(
        self, ticket: effects.Ticket, message: protocol.Rotate, descriptors: list[int]
    ) -> None:
        host = self._known(message.volume_id)
        previous = host.state.newest
        if message.generation <= host.state.acknowledged:
            self._answer(ticket, None)
            return
        if message.generation <= previous:
            text = f"generation {message.generation} is on its way already"
            raise InvalidMessage(text)
        self._take_snapshot(host.kept, message.generation, descriptors)
        host.record = message.record
        host.rotate(effects.Rotation(message.generation, previous, message.plan, ticket))

    def _unpublish(self, ticket: effects.Ticket, message: protocol.Unpublish) -> None:
        host = self._volumes.get(message.volume_id)
        if host is not None:
            host.unpublish()
        held = self._root.parent_if_present(message.target)
        if held is not None:
            try:
                held.remove()
            finally:
                held.close()
        self._answer(ticket, None)

    def _closed(self, host: VolumeHost) -> None:
        if self._volumes.get(host.volume_id) is host:
            del self._volumes[host.volume_id]


def run(config: Config) -> None:
    """Be the keeper of this node, in a mount namespace of its own, until SIGTERM or SIGINT.

    Raises:
        CannotStart: Something that the node must provide is missing; the message says what.
    """
    check_uid_base(config.worker_uid_base)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    syscalls.unshare(syscalls.CLONE_NEWNS)
    try:
        root = KubeletRoot(config.kubelet_root)
    except OSError as error:
        message = (
            f"{config.kubelet_root}/pods cannot be opened ({error.strerror}); "
            "set --kubelet-root to kubelet's root directory"
        )
        raise CannotStart(message) from error
    Keeper(config, root).serve()


def check_uid_base(base: int) -> None:
    """Raise `CannotStart` when workers' uids would not be their own.

    A uid that an account of the node has would let that account's processes signal a worker.
    """
    if not 0 < base <= _MAX_UID - MAX_VOLUMES:
        message = f"--worker-uid-base must be from 1 to {_MAX_UID - MAX_VOLUMES}"
        raise CannotStart(message)
    taken = range(base, base + MAX_VOLUMES)
    for line in Path("/etc/passwd").read_text(encoding="utf-8").splitlines():
        name, _, uid, *_ = line.split(":")
        if int(uid) in taken:
            message = f"--worker-uid-base {base}: uid {uid} belongs to the account {name!r}"
            raise CannotStart(message)

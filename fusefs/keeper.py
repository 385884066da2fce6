"""The keeper: mounts volumes, keeps their snapshots, forks and replaces their workers.

Synchronous and single-threaded on purpose (`loop`). It listens in a 0700 directory, to uid 0 only,
obeys the newest node session, and reads nothing that comes from a vault or a pod: it moves
descriptors, and passes plans and records on as bytes.
"""

import contextlib
import functools
import gc
import logging
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

from fusefs import effects, mounts, protocol, readyfile, sandbox, syscalls, worker
from fusefs.children import Children
from fusefs.config import MAX_VOLUMES, MAX_WAITING, Config, check_privileges, check_uid_base
from fusefs.emptying import empty_target
from fusefs.errors import (
    CannotStart,
    InvalidMessage,
    InvalidSnapshot,
    KeeperError,
    OverBudget,
    Superseded,
    TargetRefused,
    VolumeFailed,
    VolumeUnknown,
)
from fusefs.host import Place, VolumeHost
from fusefs.kept import KeptGenerations
from fusefs.listener import Listener
from fusefs.loop import Loop
from fusefs.sessions import Session, Sessions
from fusefs.target import KubeletRoot

log = logging.getLogger(__name__)


class Keeper:
    """All volumes of a node.

    Attributes:
        sessions: The connections that are heard.
    """

    def __init__(self, config: Config, root: KubeletRoot, loop: Loop | None = None) -> None:
        """Prepare; `serve` does the work. `root` must belong to this mount namespace."""
        self._config = config
        self._loop = loop or Loop()
        self._volumes: dict[str, VolumeHost] = {}
        self._children = Children(self._loop)
        self._slots: set[int] = set()  # each while a process with its uid lives
        self.sessions = Sessions(self._loop, self._heard)
        self._obeyed = 0
        self._root = root
        self._private = str(Path(config.socket).parent / "private")
        self._listener = Listener(config.socket, self.sessions.add)

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
            with readyfile.shown(self._config.ready_file):
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
        # The directory stays: a successor may have its own mount on it, in its own namespace, which
        # would go with the directory.
        syscalls.umount2(self._private, syscalls.MNT_DETACH)
        self._root.close()
        self._loop.close()

    def _heard(
        self, session: Session, message: protocol.NodeMessage, descriptors: list[int]
    ) -> None:
        try:
            with self._answering(effects.Ticket(session.number, message.request)):
                self._handle(session, message, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    @contextlib.contextmanager
    def _answering(self, ticket: effects.Ticket) -> Iterator[None]:
        """Answer a request that could not be carried out."""
        try:
            yield
        except KeeperError as error:
            self._answer(ticket, error)
        except Exception:  # a defect of ours: the request must be answered all the same
            log.exception("a request failed")
            self._answer(ticket, VolumeFailed("internal error; see the keeper's log"))

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
        self.sessions.send(ticket.session, message, descriptors)

    # Requests. Descriptors belong to the caller; what is kept is taken out of the list.

    def _handle(
        self, session: Session, message: protocol.NodeMessage, descriptors: list[int]
    ) -> None:
        ticket = effects.Ticket(session.number, message.request)
        match message:
            case protocol.ListVolumes():
                self._list(ticket)
            case protocol.FetchSnapshot(volume_id=volume_id):
                self._send_snapshot(ticket, volume_id)
            case protocol.Register():
                self._obeyed = max(self._obeyed, session.number)
                self._check_obeyed(session)
                self._answer(ticket, None)
            case _:
                self._check_obeyed(session)
                self._carry_out(ticket, message, descriptors)

    def _check_obeyed(self, session: Session) -> None:
        if session.number != self._obeyed:
            text = "a newer node server has registered" if self._obeyed else "register first"
            raise Superseded(text)

    def _carry_out(
        self,
        ticket: effects.Ticket,
        message: protocol.Publish | protocol.Rotate | protocol.UpdateRecord | protocol.Unpublish,
        descriptors: list[int],
    ) -> None:
        match message:
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

    def _list(self, ticket: effects.Ticket) -> None:
        states = tuple(
            protocol.VolumeState(
                volume_id=host.volume_id,
                target=host.target_path,
                generation=host.state.newest,
                record=host.record,
                worker_pid=host.worker_pid,
            )
            for host in self._volumes.values()
            if host.state.is_shown
        )
        self._send(ticket, protocol.Volumes(ticket.request, states))

    def _send_snapshot(self, ticket: effects.Ticket, volume_id: str) -> None:
        host = self._known(volume_id)
        newest = host.state.newest
        answer = protocol.SnapshotOf(ticket.request, newest)
        self._send(ticket, answer, (host.kept.descriptor(newest),))

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
        self._check_target_is_free(message)
        with contextlib.ExitStack() as undo:
            kept = KeptGenerations()
            undo.callback(kept.close)
            self._take_snapshot(kept, message.generation, descriptors)
            held = self._root.target(
                message.target, volume_id=message.volume_id, driver=self._config.driver
            )
            undo.callback(held.close)
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
            self._slots.add(host.place.slot)
            undo.pop_all()
        self._volumes[message.volume_id] = host
        host.begin()

    def _check_target_is_free(self, message: protocol.Publish | protocol.Unpublish) -> None:
        """Refuse a target that another volume is published at."""
        for host in self._volumes.values():
            if host.target_path == message.target and host.volume_id != message.volume_id:
                text = f"another volume, {host.volume_id!r}, is published at {message.target!r}"
                raise TargetRefused(text)

    def _take_snapshot(
        self, kept: KeptGenerations, generation: int, descriptors: list[int]
    ) -> None:
        if len(descriptors) != 1 or generation < 1:
            message = "one snapshot and a generation from 1 on must come with this request"
            raise InvalidMessage(message)
        try:
            kept.add(generation, descriptors.pop())
        except InvalidSnapshot as error:
            raise InvalidMessage(str(error)) from error

    def _free_place(self) -> Place:
        free = (number for number in range(MAX_VOLUMES) if number not in self._slots)
        slot = next(free, None)
        if slot is None:
            message = f"this node has {MAX_VOLUMES} volumes, which is the most"
            raise OverBudget(message)
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
        if message.generation <= previous:
            text = f"generation {message.generation} is not newer than {previous}"
            raise InvalidMessage(text)
        if host.state.waiting >= MAX_WAITING:
            text = f"{MAX_WAITING} generations of volume {message.volume_id!r} are under way"
            raise OverBudget(text)
        self._take_snapshot(host.kept, message.generation, descriptors)
        host.record = message.record
        host.rotate(effects.Rotation(message.generation, previous, message.plan, ticket))

    def _unpublish(self, ticket: effects.Ticket, message: protocol.Unpublish) -> None:
        self._check_target_is_free(message)
        host = self._volumes.get(message.volume_id)
        if host is not None:
            host.unpublish()
        held = self._root.parent_if_present(message.target)
        if held is None:
            self._answer(ticket, None)
            return
        try:
            if held.remove(volume_id=message.volume_id, driver=self._config.driver):
                self._answer(ticket, None)
            else:
                emptied = functools.partial(self._emptied, ticket, message)
                empty_target(held, self._children, emptied)
        finally:
            held.close()

    def _emptied(self, ticket: effects.Ticket, message: protocol.Unpublish, code: int) -> None:
        """Go on with an unpublish whose target somebody had written into."""
        with self._answering(ticket):
            if code:
                text = f"target {message.target!r} could not be emptied; see the keeper's log"
                raise VolumeFailed(text)
            self._unpublish(ticket, message)

    def _closed(self, host: VolumeHost) -> None:
        if self._volumes.get(host.volume_id) is host:
            del self._volumes[host.volume_id]


def run(config: Config) -> None:
    """Be the keeper of this node, in a mount namespace of its own, until SIGTERM or SIGINT.

    Raises:
        CannotStart: Something that the node must provide is missing; the message says what.
    """
    sandbox.forbid_core_files()  # children inherit it, also until they give up the rest
    check_uid_base(config.worker_uid_base, config.passwd_file)
    check_privileges()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    syscalls.unshare(syscalls.CLONE_NEWNET)  # it talks to nobody
    try:
        mounts.share_only(f"{config.kubelet_root}/pods")
        root = KubeletRoot(config.kubelet_root)
    except OSError as error:
        message = (
            f"{config.kubelet_root}/pods cannot be opened ({error.strerror}); "
            "set --kubelet-root to kubelet's root directory"
        )
        raise CannotStart(message) from error
    Keeper(config, root).serve()

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
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fusefs import backup, effects, mounts, protocol, sandbox, syscalls, worker
from fusefs.children import Children
from fusefs.config import MAX_WAITING, Config, check_privileges, check_uid_base
from fusefs.emptying import empty_target
from fusefs.errors import (
    CannotStart,
    InvalidMessage,
    KeeperError,
    OverBudget,
    Superseded,
    TargetRefused,
    VolumeFailed,
)
from fusefs.lifecycle import Lifecycle
from fusefs.loop import Loop
from fusefs.sessions import Session, Sessions
from fusefs.target import KubeletRoot
from fusefs.volumes import Volumes, take_snapshot

log = logging.getLogger(__name__)

_SUPERSEDED: Final = "a newer node server has registered"


class Keeper:
    """All volumes of a node.

    Attributes:
        sessions: The connections that are heard.
    """

    def __init__(self, config: Config, root: KubeletRoot, loop: Loop | None = None) -> None:
        """Prepare; `serve` does the work. `root` must belong to this mount namespace."""
        self._config = config
        self._loop = loop or Loop()
        self._children = Children(self._loop)
        self.sessions = Sessions(self._loop, self._heard, self._gone)
        self._root = root
        self._private = str(Path(config.socket).parent / "private")
        self._volumes = Volumes(
            config,
            root,
            self._loop,
            self._private,
            answer=self._answer,
            announce=self.sessions.announce,
        )
        self._given_back = backup.Incoming()
        self._publishing: dict[effects.Ticket, str] = {}  # requests, and the volumes that they name
        self._lifecycle = Lifecycle(config, self._loop, self._volumes, self.sessions)

    def serve(self) -> int:
        """Serve, once nobody else does, until the end; return the exit code."""
        Path(self._private).mkdir(mode=0o700, parents=True, exist_ok=True)
        mounts.mount_private_root(self._private)
        worker.warm_up()
        gc.collect()
        gc.freeze()  # keeps the pages of what is imported shared with every worker
        try:
            return self._lifecycle.run()
        finally:
            self._close()

    def _close(self) -> None:
        """End. Mounts that pods use stay: an empty directory would look like no secrets."""
        # The directory stays: a successor may have its own mount on it, in its own namespace, which
        # would go with the directory.
        syscalls.umount2(self._private, syscalls.MNT_DETACH)
        self._root.close()
        self._loop.close()

    def _gone(self, session: Session) -> None:
        self._lifecycle.gone(session)

    def _heard(
        self, session: Session, message: protocol.NodeMessage, descriptors: list[int]
    ) -> None:
        try:
            if self._lifecycle.is_deaf_to(session):
                return
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
        published = self._volumes.get(self._publishing.pop(ticket, ""))
        if error is None:
            self._send(
                ticket,
                protocol.Done(ticket.request)
                if published is None
                else protocol.Published(
                    ticket.request, published.filesystem, published.reason, published.left_in
                ),
            )
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
                self._register(session, message)
            case protocol.TakeOver() | protocol.StandingBy() | protocol.Committed():
                self._lifecycle.hear(ticket, message)
            case _:
                self._check_obeyed(session)
                self._carry_out(ticket, message, descriptors)

    def _register(self, session: Session, message: protocol.Register) -> None:
        """Obey a session from now on, and let it hold everything."""
        if message.major != protocol.MAJOR:
            text = (
                f"the node server speaks version {message.major} of the control messages, this "
                f"keeper version {protocol.MAJOR}; install both from one release"
            )
            raise InvalidMessage(text)
        before = self.sessions.obeyed
        if not self.sessions.obey(session):
            raise Superseded(_SUPERSEDED)
        self._given_back.close()
        for host in self._volumes.shown():
            for notice, held in host.holdings():
                self.sessions.announce(notice, held)
        self._answer(effects.Ticket(session.number, message.request), None)
        if before not in (0, session.number):
            # Not earlier: were this keeper killed meanwhile, nobody would hold everything.
            self.sessions.send(before, protocol.Dismissed(), ())

    def _check_obeyed(self, session: Session) -> None:
        if session.number != self.sessions.obeyed:
            raise Superseded(_SUPERSEDED if self.sessions.obeyed else "register first")

    def _carry_out(
        self,
        ticket: effects.Ticket,
        message: protocol.NodeCommand,
        descriptors: list[int],
    ) -> None:
        match message:
            case protocol.GiveBack(volume=volume):
                self._given_back.announce(volume, descriptors)
                self._answer(ticket, None)
            case protocol.GiveBackGeneration():
                self._take_back(ticket, message, descriptors)
            case protocol.Publish():
                self._publish(ticket, message, descriptors)
            case protocol.Rotate():
                self._rotate(ticket, message, descriptors)
            case protocol.UpdateRecord():
                self._volumes.known(message.volume_id).record = message.record
                self._answer(ticket, None)
            case protocol.Unpublish():
                self._unpublish(ticket, message)

    def _take_back(
        self,
        ticket: effects.Ticket,
        message: protocol.GiveBackGeneration,
        descriptors: list[int],
    ) -> None:
        """Keep a generation that is given back; with the last one the volume is served again."""
        volume_id = message.volume_id
        whole = self._given_back.add(volume_id, message.generation, descriptors)
        if whole is not None:
            with contextlib.closing(whole):
                self._volumes.adopt(whole)
            log.info("a volume is served again", extra={"volume_id": volume_id})
        self._answer(ticket, None)

    def _list(self, ticket: effects.Ticket) -> None:
        states = tuple(
            protocol.VolumeState(
                volume_id=host.volume_id,
                target=host.target_path,
                generation=host.state.newest,
                record=host.record,
                worker_pid=host.worker_pid,
                filesystem=host.filesystem,
                reason=host.reason,
            )
            for host in self._volumes.shown()
        )
        self._send(ticket, protocol.Volumes(ticket.request, states))

    def _send_snapshot(self, ticket: effects.Ticket, volume_id: str) -> None:
        host = self._volumes.known(volume_id)
        newest = host.state.newest
        answer = protocol.SnapshotOf(ticket.request, newest, host.kept.digest(newest))
        self._send(ticket, answer, (host.kept.descriptor(newest),))

    def _publish(
        self, ticket: effects.Ticket, message: protocol.Publish, descriptors: list[int]
    ) -> None:
        self._publishing[ticket] = message.volume_id
        known = self._volumes.get(message.volume_id)
        if known is not None:
            if known.target_path != message.target:
                text = f"volume {message.volume_id!r} is published at {known.target_path!r}"
                raise TargetRefused(text)
            known.record = message.record
            known.publish_again(ticket)
            return
        self._volumes.begin(message, descriptors, ticket)

    def _rotate(
        self, ticket: effects.Ticket, message: protocol.Rotate, descriptors: list[int]
    ) -> None:
        host = self._volumes.known(message.volume_id)
        previous = host.state.newest
        if message.generation <= previous:
            text = f"generation {message.generation} is not newer than {previous}"
            raise InvalidMessage(text)
        if host.state.waiting >= MAX_WAITING:
            text = f"{MAX_WAITING} generations of volume {message.volume_id!r} are under way"
            raise OverBudget(text)
        take_snapshot(host.kept, message.generation, descriptors, message.digest)
        host.record = message.record
        host.rotate(effects.Rotation(message.generation, previous, message.plan, ticket))

    def _unpublish(self, ticket: effects.Ticket, message: protocol.Unpublish) -> None:
        self._volumes.check_target_is_free(message.volume_id, message.target)
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


def run(config: Config) -> int:
    """Be a keeper of this node, in a mount namespace of its own; return the exit code.

    Raises:
        CannotStart: Something that the node must provide is missing; the message says what.
    """
    sandbox.forbid_core_files()  # children inherit it, also until they give up the rest
    check_uid_base(config.worker_uid_base, config.passwd_file)
    check_privileges()
    sandbox.raise_limits()
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
    return Keeper(config, root).serve()

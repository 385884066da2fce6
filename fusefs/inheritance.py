"""The side of a keeper that starts while another one serves: it takes everything over, or waits.

See `handover` for what is said. A keeper that the serving one refuses waits for the lease, and
serves when that is free: what it serves then the node server gives back. When its predecessor
vanishes after everything has come it goes on alone.
"""

import functools
import logging
import os
import socket
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from fusefs import packets, protocol
from fusefs.backup import Backup, Incoming
from fusefs.errors import FusefsError, InvalidMessage
from fusefs.lease import Lease
from fusefs.loop import Loop, Timer

log = logging.getLogger(__name__)

POLL_S: Final = 0.02
ASK_AGAIN_S: Final = 1.0
PATIENCE_S: Final = 20.0  # without any news; more than a predecessor takes to drain
ALONE_S: Final = 2.0


class Host(Protocol):
    """A volume that is taken over."""

    def serve(self, *, recover: bool) -> None:
        """Let the worker that stands by serve; with `recover`, what was taken before as well."""
        ...


@attrs.frozen(kw_only=True)
class Heir:
    """What taking over asks of its keeper.

    Attributes:
        adopt: Goes on with a volume, with a worker that stands by.
        serve: Serves: the lease is taken.
        fail: Ends the keeper; the one that serves goes on.
    """

    adopt: Callable[[Backup, Callable[[bool], None]], Host]
    serve: Callable[[], None]
    fail: Callable[[], None]


class Inheritance:
    """From the start of a keeper to the moment at which it serves."""

    def __init__(self, loop: Loop, lease: Lease, path: str, rank: int, heir: Heir) -> None:
        """Take over from the keeper that listens at `path`, if one holds `lease`."""
        self._loop = loop
        self._lease = lease
        self._path = path
        self._rank = rank
        self._heir = heir
        self._connection: socket.socket | None = None
        self._refused = False
        self._ask_at = 0.0
        self._step = "asking"
        self._incoming = Incoming()
        self._hosts: dict[str, Host] = {}
        self._waiting: set[str] = set()  # for a worker that stands by
        self._served: set[str] = set()
        self._deadline: Timer | None = None

    def begin(self) -> None:
        """Serve if nobody does; else take over, or wait."""
        if self._lease.take():
            self._serve()
            return
        if self._connection is None and not self._refused and self._loop.now() >= self._ask_at:
            self._ask()
        if self._connection is None:
            self._loop.call_later(POLL_S, self.begin)

    def _ask(self) -> None:
        self._ask_at = self._loop.now() + ASK_AGAIN_S
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(0)
        try:
            connection.connect(self._path)
            packets.send(connection, protocol.TakeOver(0, self._rank))
        except OSError as error:
            log.info("the keeper that serves does not listen (yet): %s", error.strerror)
            connection.close()
            return
        self._connection = connection
        self._loop.watch(connection.fileno(), self._read)
        self._be_patient()

    def _be_patient(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(PATIENCE_S, self._give_up)

    def _read(self) -> None:
        assert self._connection is not None  # noqa: S101 - watched only while it is open
        try:
            received = packets.receive(self._connection, protocol.AT_SUCCESSOR)
        except (ConnectionError, InvalidMessage) as error:
            log.warning("the keeper that serves is not understood: %s", error)
            received = None
        if received is None:
            self._lose()
            return
        message, descriptors = received
        self._be_patient()
        try:
            self._hear(message, descriptors)
        except FusefsError as error:
            log.error("this keeper cannot take over: %s", error)  # noqa: TRY400 - the node's state
            self._give_up()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _hear(self, message: protocol.ToSuccessor, descriptors: list[int]) -> None:
        match message:
            case protocol.Refused(text=text):
                log.warning("waiting for the lease: %s", text)
                self._refused = True
                self._hang_up()
                self.begin()
            case protocol.Hold(volume=volume):
                self._incoming.announce(volume, descriptors)
            case protocol.HoldGeneration(volume_id=volume_id, generation=generation):
                whole = self._incoming.add(volume_id, generation, descriptors)
                if whole is not None:
                    self._adopt(whole)
            case protocol.Stopped(volume_id=volume_id, answered=answered):
                self._serve_volume(volume_id, recover=not answered)
            case protocol.Done():
                self._go_on()
            case _:
                pass  # news of volumes that have come already, or will

    def _adopt(self, backup: Backup) -> None:
        volume_id = backup.volume_id
        self._waiting.add(volume_id)
        try:
            standing_by = functools.partial(self._standing_by, volume_id)
            self._hosts[volume_id] = self._heir.adopt(backup, standing_by)
        finally:
            backup.close()

    def _standing_by(self, volume_id: str, could_serve: bool) -> None:  # noqa: FBT001 - a callback
        if not could_serve:
            log.error("a worker would speak otherwise than the kernel was told")
            self._give_up()
            return
        if self._step in ("asking", "forking"):
            self._be_patient()
            self._waiting.discard(volume_id)
            self._check_standing_by()

    def _go_on(self) -> None:
        """Hear that the predecessor has done what was asked."""
        match self._step:
            case "asking":  # everything has come
                self._step = "forking"
                self._check_standing_by()
            case "attaching":
                self._step = "committed"
                self._send(protocol.Committed(2))
                self._wait_for_lease(self._loop.now() + ALONE_S)

    def _check_standing_by(self) -> None:
        if self._step == "forking" and not self._waiting:
            self._step = "attaching"
            self._send(protocol.StandingBy(1))

    def _serve_volume(self, volume_id: str, *, recover: bool) -> None:
        if volume_id not in self._served:
            self._served.add(volume_id)
            self._hosts[volume_id].serve(recover=recover)

    def _send(self, message: protocol.SuccessorMessage) -> None:
        assert self._connection is not None  # noqa: S101 - there is no step without one
        try:
            packets.send(self._connection, message)
        except OSError as error:
            log.warning("the keeper that serves does not listen: %s", error)

    def _lose(self) -> None:
        """Go on alone if the predecessor is gone with its lease and all has come; else not."""
        self._hang_up()
        if self._step == "asking":
            self._start_over()
        elif self._step != "committed":
            log.warning("the keeper before has left")
            self._wait_for_lease(self._loop.now() + ALONE_S)

    def _start_over(self) -> None:
        if self._hosts:
            self._heir.fail()  # half of the volumes have come; a new process begins without them
        else:
            self.begin()

    def _wait_for_lease(self, until: float) -> None:
        if self._lease.take():
            for volume_id in self._hosts:
                self._serve_volume(volume_id, recover=True)
            self._hang_up()
            self._serve()
        elif self._loop.now() >= until:
            self._give_up()
        else:
            self._loop.call_later(POLL_S / 10, lambda: self._wait_for_lease(until))

    def _serve(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._step = "serving"
        self._heir.serve()

    def _give_up(self) -> None:
        if self._step != "serving":
            log.error("the take-over failed; the keeper that serves goes on")
            self._hang_up()
            self._heir.fail()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._loop.unwatch(self._connection.fileno())
            self._connection.close()
            self._connection = None
        if self._deadline is not None:
            self._deadline.cancel()
        self._incoming.close()

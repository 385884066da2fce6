"""A succession without processes: workers that live, hang and die as a test says."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from fakes.virtualloop import VirtualLoop
from fusefs import protocol, sandbox, succession
from fusefs.succession import Listener, Succession
from fusefs.worker import Assignment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

    from fusefs.loop import Loop

KILLED: Final = -9


class Worker:
    """Stands for `fusefs.workerprocess.WorkerProcess`.

    Attributes:
        assignment: What it was forked to serve.
        told: What it was told, but for pings.
        killed: Whether somebody tried to kill it.
        over: Whether it has ended.
        mortal: Whether a kill ends it; one that is blocked in the kernel lives on.
        alive: Whether it answers pings.
    """

    def __init__(
        self,
        _loop: Loop,
        prepare: Callable[[socket.socket], Assignment],
        spoke: Callable[[protocol.FromWorker], None],
        ended: Callable[[int, float], None],
    ) -> None:
        """Be forked."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.assignment = prepare(theirs)
        self.pid = 100 + self.assignment.number
        self.say = spoke
        self._ended = ended
        self._gone: Callable[[], None] | None = None
        self.told: list[protocol.Message] = []
        self.mortal = self.alive = True
        self.killed = self.over = False

    def tell(self, message: protocol.Message, _descriptors: Sequence[int] = ()) -> None:
        """Answer a ping; note anything else."""
        if not isinstance(message, protocol.Ping):
            self.told.append(message)
        elif self.alive:
            self.say(protocol.Pong())

    def kill(self) -> None:
        """End, if that is possible."""
        self.killed = True
        if self.mortal:
            self.end(KILLED)

    def end(self, code: int) -> None:
        """End with an exit code."""
        if self.over:
            return
        self.over = True
        if self._gone is not None:
            self._gone()
        else:
            self._ended(code, 1.0)

    def abandon(self, gone: Callable[[], None]) -> None:
        """Be heard no more."""
        self._gone = gone
        self.say = lambda _: None
        self.kill()


class World:
    """A succession, its workers, and what its owner hears."""

    def __init__(self, patch: pytest.MonkeyPatch, *, standby: bool = False) -> None:
        """Start with no worker; `patch` is undone by the caller."""
        patch.setattr(succession, "WorkerProcess", self._fork)
        patch.setattr(sandbox, "empty_root", lambda: os.open("/", os.O_PATH))
        self.loop = VirtualLoop()
        self.workers: list[Worker] = []
        self.heard: list[str] = []
        self.served_s: list[float] = []
        self.restarting = True
        listener = Listener(
            ready=lambda _: self.heard.append("ready"),
            spoke=lambda said: self.heard.append(type(said).__name__),
            ended=self.end,
            hopeless=lambda: self.heard.append("hopeless"),
            standing_by=lambda: self.heard.append("standing by"),
            refused=lambda: self.heard.append("refused"),
            broken=lambda _: self.heard.append("broken"),
        )
        self.succession = Succession(
            self.loop, self.assign, listener, volume_id="v", standby=standby
        )

    def _fork(
        self,
        loop: Loop,
        prepare: Callable[[socket.socket], Assignment],
        spoke: Callable[[protocol.FromWorker], None],
        ended: Callable[[int, float], None],
    ) -> Worker:
        self.workers.append(Worker(loop, prepare, spoke, ended))
        return self.workers[-1]

    def assign(self, control: socket.socket, root: int) -> Assignment:
        """Return an assignment of which nothing is used."""
        return Assignment(
            device=-1,
            control=control,
            usage=-1,
            root=root,
            init_request=b"",
            first_reply=None,
            snapshots=(),
            pending=None,
            plan=None,
            primed=True,
            uid=1,
            keeper=1,
        )

    def end(self, served_s: float) -> None:
        """Hear that a worker has ended; do as the volume does."""
        self.heard.append("ended")
        self.served_s.append(served_s)
        if self.restarting:
            self.succession.start()

    @property
    def worker(self) -> Worker:
        """The newest worker."""
        return self.workers[-1]

    def serve(self) -> Worker:
        """Start a worker and let it come up."""
        self.succession.start()
        self.worker.say(protocol.Ready(b""))
        return self.worker

"""The session with the keeper: connected again when lost, given up for good when superseded.

The keeper obeys the newest session of a node, so there is one `KeeperLink` per process. Its calls
are shielded from the caller's cancellation and have a deadline of their own: a call that was sent
has happened or not, and only its answer tells which.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeVar

import trio
from typing_extensions import override

from csi import logkeys
from fusefs.errors import InvalidMessage, KeeperError, KeeperUnavailable, Superseded
from fusefs.published import DEFAULTS, PublishedVolume, Shown, VolumeOptions
from fusefs.snapshot import Sealed

log = logging.getLogger(__name__)

# A publish forks, mounts and primes within this; a rotation answers within milliseconds.
CALL_TIMEOUT_S: Final = 30.0
# A keeper is restarted by its supervisor at once, and readers wait until all is given back to it.
_FIRST_RETRY_S: Final = 0.02
_QUICK_S: Final = 3.0
_LAST_RETRY_S: Final = 2.0
# A pod whose reader waits in the kernel could not even be deleted.
ABANDON_S: Final = 120.0
_ABANDON_STEPS: Final = 12  # a process that did not run for a while counts no more of it than one

T = TypeVar("T")


class Keeper(Protocol):
    """One session with the keeper: `fusefs.client.KeeperClient`, or a fake."""

    async def publish(
        self,
        volume_id: str,
        target: str,
        sealed: Sealed,
        *,
        record: bytes,
        options: VolumeOptions = DEFAULTS,
    ) -> Shown:
        """Mount a volume; done already is fine."""
        ...

    async def rotate(self, volume_id: str, sealed: Sealed, *, record: bytes) -> None:
        """Bring a new generation into a volume; return when every new open sees it."""
        ...

    async def update_record(self, volume_id: str, record: bytes) -> None:
        """Replace the record of a volume."""
        ...

    async def unpublish(self, volume_id: str, target: str) -> None:
        """Take a volume away; an unknown one is fine."""
        ...

    async def volumes(self, *, snapshots: bool = True) -> Sequence[PublishedVolume]:
        """Return everything that the keeper serves; the snapshots belong to the caller."""
        ...

    async def wait_lost(self) -> None:
        """Return when the connection is lost; raise `Superseded` when it was given up for good."""
        ...


Connect = Callable[[], AbstractAsyncContextManager[Keeper]]
OnConnected = Callable[[Keeper, Sequence[PublishedVolume]], None]


class KeeperLink:
    """Holds a session as long as there is a keeper to talk to.

    Attributes:
        on_changed: Told when there may be a session, or none any more.
        is_newest: Asked when another node server is obeyed: whether it can only be an older one.
    """

    def __init__(self, connect: Connect, *, abandon: Callable[[], None] = lambda: None) -> None:
        """Connect when `run`.

        `abandon` is called when no keeper has come for too long, and when another node server
        holds everything.
        """
        self.on_changed: Callable[[], None] = lambda: None
        self.is_newest: Callable[[], bool] = lambda: False
        self._connect = connect
        self._abandon = abandon
        self._session: _Session | None = None
        self._superseded = False
        self._changed = trio.Event()

    @property
    def connected(self) -> bool:
        """Whether there is a session at the moment."""
        return self._session is not None

    async def run(self, on_connected: OnConnected) -> None:
        """Keep a session until superseded; then return, and let every caller know.

        Args:
            on_connected: Told, before anybody else may use the session, what the keeper serves.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._abandon_in_time)
            await self._keep(on_connected)
            nursery.cancel_scope.cancel()

    async def _keep(self, on_connected: OnConnected) -> None:
        delay, lost = _FIRST_RETRY_S, trio.current_time()
        while True:
            error: Exception | None = None
            try:
                async with self._connect() as keeper:
                    error = await self._use(_Session(keeper), on_connected)
                delay, lost = _FIRST_RETRY_S, trio.current_time()
            except* (KeeperUnavailable, Superseded) as group:
                # A client has tasks of its own, so what it raises may come in a group.
                error = group.exceptions[0]
            # To a keeper that has just started, whoever comes last is the newest.
            if isinstance(error, Superseded) and not self.is_newest():
                log.warning("superseded by a newer node server; idle until the end")
                self._superseded = True
                self._abandon()
                self._wake()
                return
            absent = trio.current_time() - lost
            log.log(
                _level(delay, absent),
                "no keeper; trying again",
                extra={logkeys.ERROR: str(error), logkeys.SECONDS: delay},
            )
            await trio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
            if absent > _QUICK_S:
                delay = min(delay * 2, _LAST_RETRY_S)

    async def _abandon_in_time(self) -> None:
        """Let go of what is held for a keeper that does not come."""
        while True:
            if not await self._comes_in_time():
                log.error(
                    "no keeper has come for %.0f s: the mounts of all volumes end now; they are "
                    "published again when there is a keeper; is its pod running?",
                    ABANDON_S,
                )
                self._abandon()
                await self._until(connected=True)
            await self._until(connected=False)

    async def _comes_in_time(self) -> bool:
        for _ in range(_ABANDON_STEPS):
            with trio.move_on_after(ABANDON_S / _ABANDON_STEPS):
                await self._until(connected=True)
                return True
        return False

    async def _until(self, *, connected: bool) -> None:
        while self.connected is not connected:
            await self._changed.wait()

    async def session(self, *, patience: float = 10.0) -> Keeper:
        """Return the session, after waiting a while for one.

        Raises:
            KeeperUnavailable: There was none in time.
            Superseded: There will never be one again.
        """
        with trio.move_on_after(patience):
            return await self.next_session()
        message = f"no keeper has answered for {patience:.0f} s; is the keeper's pod running?"
        raise KeeperUnavailable(message)

    async def next_session(self) -> Keeper:
        """Return the session, however long it takes to have one.

        Raises:
            Superseded: There will never be one again.
        """
        while self._session is None:
            if self._superseded:
                message = "a newer node server has taken over"
                raise Superseded(message)
            await self._changed.wait()
        return self._session

    async def answers(self) -> bool:
        """Return whether the keeper answers now."""
        if self._session is None:
            return False
        try:
            await self._session.volumes(snapshots=False)
        except (KeeperUnavailable, Superseded):
            return False
        return True

    async def _use(
        self, session: "_Session", on_connected: OnConnected
    ) -> KeeperUnavailable | Superseded:
        """Give the session to whoever wants it; return what ended it."""
        try:
            on_connected(session, await session.volumes())
            self._session = session
            self._wake()
            log.info("connected to the keeper")
            return await session.wait_broken()
        except (KeeperUnavailable, Superseded) as error:
            return error
        finally:
            self._session = None
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        self.on_changed()


class _Session(Keeper):
    """A session whose calls end: with an answer, or with `KeeperUnavailable`."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._broken = trio.Event()
        self._error: KeeperUnavailable | Superseded | None = None

    @override
    async def publish(
        self,
        volume_id: str,
        target: str,
        sealed: Sealed,
        *,
        record: bytes,
        options: VolumeOptions = DEFAULTS,
    ) -> Shown:
        return await self._ask(
            lambda: self._keeper.publish(volume_id, target, sealed, record=record, options=options)
        )

    @override
    async def rotate(self, volume_id: str, sealed: Sealed, *, record: bytes) -> None:
        try:
            await self._ask(lambda: self._keeper.rotate(volume_id, sealed, record=record))
        except Exception as error:
            # What the keeper shows is not what we think: the next session starts from its word.
            if isinstance(error, InvalidMessage) or not isinstance(error, KeeperError):
                self._break(KeeperUnavailable("a rotation ended in doubt"))
            raise

    @override
    async def update_record(self, volume_id: str, record: bytes) -> None:
        await self._ask(lambda: self._keeper.update_record(volume_id, record))

    @override
    async def unpublish(self, volume_id: str, target: str) -> None:
        await self._ask(lambda: self._keeper.unpublish(volume_id, target))

    @override
    async def volumes(self, *, snapshots: bool = True) -> Sequence[PublishedVolume]:
        return await self._ask(lambda: self._keeper.volumes(snapshots=snapshots), shield=False)

    @override
    async def wait_lost(self) -> None:
        await self._keeper.wait_lost()

    async def wait_broken(self) -> KeeperUnavailable | Superseded:
        """Return why the session cannot be used any more: lost, without an answer, superseded."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            await self._broken.wait()
            nursery.cancel_scope.cancel()
        return self._error or KeeperUnavailable("the session ended")

    async def _watch(self) -> None:
        try:
            await self._keeper.wait_lost()
        except Superseded as error:
            self._break(error)
        else:
            self._break(KeeperUnavailable("the connection to the keeper was lost"))

    async def _ask(self, call: Callable[[], Awaitable[T]], *, shield: bool = True) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._error is not None:
            raise type(self._error)(*self._error.args)
        try:
            deadline = trio.current_time() + CALL_TIMEOUT_S
            with trio.CancelScope(shield=shield, deadline=deadline):
                return await call()
            message = f"the keeper did not answer within {CALL_TIMEOUT_S:.0f} s"
            raise KeeperUnavailable(message)  # noqa: TRY301 - handled like a lost connection
        except (KeeperUnavailable, Superseded) as error:
            self._break(error)
            raise

    def _break(self, error: KeeperUnavailable | Superseded) -> None:
        self._error = self._error or error
        self._broken.set()


def _level(delay: float, absent: float) -> int:
    """Return how loudly to say that there is no keeper: not many times a second."""
    if 0 < absent <= _QUICK_S:
        return logging.DEBUG
    return logging.INFO if delay < _LAST_RETRY_S else logging.WARNING

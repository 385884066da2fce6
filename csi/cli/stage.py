"""All programs of a run, in order: started, watched, started again, stopped.

Tasks, in one nursery: one for each program, one that keeps the vault across restarts of the
emulator, one that asks the keeper which workers there are.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from csi.cli import calls, scene
from csi.cli.errors import CliError, SetupFailed
from csi.cli.kubelet import Kubelet
from csi.cli.processes import Changes, Supervised, tail
from csi.cli.vaultstate import VaultState
from fusefs.client import KeeperClient, connect
from fusefs.errors import KeeperUnavailable
from provider.emulator import EmulatorClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from csi.cli.layout import Workspace

log = logging.getLogger(__name__)

START_S: Final = 60.0
UNPUBLISH_S: Final = 10.0
WORKERS_S: Final = 0.1  # how old the list of workers may be

_LOOK_S: Final = 0.02
_GIVE_UP_STARTS: Final = 4
_UNPUBLISH_RETRY_S: Final = 0.2


class Stage:
    """A driver with everything around it that it needs.

    Attributes:
        changes: Told when a process starts or ends, a worker too.
        restarts: Told when a node server or keeper has been started.
        workers: The worker of each volume.
        kubelet: Who publishes the volume.
        vault: Where its secrets are.
        published: Whether there is something to take away.
        emulator_url: Where the vault is, from the start on and for the whole run.
    """

    def __init__(self, workspace: Workspace) -> None:
        """Prepare; `staged` does the rest."""
        self.workspace = workspace
        self.scene = scene.Scene(workspace=workspace)
        self.changes = Changes()
        self.restarts = Changes()
        self.workers: dict[str, int] = {}
        self.programs = {
            name: Supervised(
                program, log_file=workspace.log(name), run=workspace.run, changes=self.changes
            )
            for name, program in self.scene.programs().items()
        }
        self.kubelet = Kubelet(
            scene.VOLUME,
            root=workspace.kubelet,
            socket=workspace.csi_socket,
            secrets=self.scene.credentials,
        )
        self._emulator = EmulatorClient.from_dir(workspace.emulator)
        names = [secret.name for secret in scene.SECRETS]
        self.vault = VaultState(self._emulator, self.programs["emulator"], names)
        self.published = False
        self.emulator_url = ""

    async def start(self, nursery: trio.Nursery) -> None:
        """Start everything; return when everything answers.

        Raises:
            SetupFailed: A program does not come up.
        """
        self.scene.write()
        workspace = self.workspace
        for name in ("emulator", "keeper", "node"):
            nursery.start_soon(self.programs[name].run)
        nursery.start_soon(self.vault.run)
        nursery.start_soon(self._watch_workers)
        nursery.start_soon(self._watch_restarts)
        await self._until("emulator", self._vault_answers)
        self.emulator_url = self._emulator.url
        emulator = self.programs["emulator"]
        emulator.program = scene.at_port(emulator.program, self._emulator.port)
        nursery.start_soon(self.programs["provider"].run)
        await self._until("keeper", self._keeper_answers)
        await self._until("provider", lambda: calls.provider_ready(workspace.provider_socket))
        await self._until("node", lambda: calls.node_ready(workspace.csi_socket))

    async def publish(self) -> None:
        """Publish the volume for the first time.

        Raises:
            CallFailed: The driver's answer.
        """
        self.published = True
        await self.kubelet.publish()

    async def unpublish(self) -> None:
        """Take the volume away.

        Raises:
            CallFailed: The driver's answer.
            FoldersLeft: It left something at the target.
        """
        await self.kubelet.unpublish()
        self.published = False

    async def stop(self) -> None:
        """Take away what is published, then end the programs, those first that use others."""
        for program in self.programs.values():
            program.resume()
        if self.published:
            with trio.move_on_after(UNPUBLISH_S):
                await self._unpublish_at_last()
        for name in ("node", "provider", "emulator", "keeper"):
            await self.programs[name].stop()

    def failure_report(self) -> list[str]:
        """Return the last lines of every log, for a person to look at."""
        lines = []
        for log_file in self.workspace.logs():
            last = tail(log_file)
            if last:
                lines += [f"--- {log_file.stem}, last lines of its log", *last]
        return lines

    async def _unpublish_at_last(self) -> None:
        """Unpublish, patiently: what must answer may have been killed a moment ago."""
        while True:
            try:
                await self.unpublish()
            except CliError as error:
                log.info("unpublish failed; trying again: %s", error)
                await trio.sleep(_UNPUBLISH_RETRY_S)
            else:
                return

    async def _until(self, name: str, answers: Callable[[], Awaitable[bool]]) -> None:
        program = self.programs[name]
        with trio.move_on_after(START_S):
            while not await answers():
                if program.starts >= _GIVE_UP_STARTS:
                    message = f"the {name} ends again and again"
                    raise SetupFailed(message)
                await trio.sleep(_LOOK_S)
            return
        message = f"the {name} does not answer within {START_S:.0f} s"
        raise SetupFailed(message)

    async def _vault_answers(self) -> bool:
        with trio.move_on_after(_LOOK_S):
            await self.vault.wait_ready()
            return True
        return False

    async def _keeper_answers(self) -> bool:
        try:
            async with connect(str(self.workspace.keeper_socket), register=False) as client:
                await client.volumes(snapshots=False)
        except KeeperUnavailable:
            return False
        return True

    async def _watch_workers(self) -> None:
        """Keep `workers` right. One connection: a keeper that is stopped accepts no second one."""
        while True:
            try:
                async with connect(str(self.workspace.keeper_socket), register=False) as client:
                    await self._ask_for_workers(client)
            except KeeperUnavailable:
                self._set_workers({})
            await trio.sleep(_LOOK_S)

    async def _ask_for_workers(self, client: KeeperClient) -> None:
        while True:
            volumes = await client.volumes(snapshots=False)
            self._set_workers(
                {
                    volume.volume_id: volume.worker_pid
                    for volume in volumes
                    if volume.worker_pid is not None
                }
            )
            await trio.sleep(WORKERS_S)

    def _set_workers(self, workers: dict[str, int]) -> None:
        if workers != self.workers:
            self.workers = workers
            self.changes.notify()

    async def _watch_restarts(self) -> None:
        watched = [self.programs[name] for name in ("node", "keeper")]
        starts = [program.starts for program in watched]
        seen = self.changes.count
        while True:
            seen = await self.changes.wait_beyond(seen)
            now = [program.starts for program in watched]
            if now != starts:
                starts = now
                self.restarts.notify()


@asynccontextmanager
async def staged(workspace: Workspace) -> AsyncIterator[Stage]:
    """Have everything run while the block does.

    Raises:
        SetupFailed: A program does not come up.
    """
    failure = None
    stage = Stage(workspace)
    async with trio.open_nursery() as nursery:
        try:
            await stage.start(nursery)
            yield stage
        except Exception as error:  # noqa: BLE001 - raised below, without a group around it
            failure = error
            if isinstance(error, CliError):
                error.add_note("\n".join(stage.failure_report()))
        finally:
            with trio.CancelScope(shield=True):
                await stage.stop()
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure

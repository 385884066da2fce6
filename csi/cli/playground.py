"""`akvfs playground`: everything up until SIGTERM, and `playground.json`, which says where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
import msgspec
import trio

from csi.cli import control, peek
from csi.cli.errors import CallFailed, SetupFailed
from csi.cli.signals import StopSignals
from csi.cli.stage import Stage, staged
from csi.cli.workspace import occupied

if TYPE_CHECKING:
    from pathlib import Path

    from csi.cli.layout import Workspace

_FIRST_WORKER_S: Final = 10.0


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `playground.json`."""

    target: str
    csi_socket: str
    provider_socket: str
    keeper_socket: str
    emulator_url: str
    secrets: dict[str, str]  # name to path
    pids: dict[str, int | None]  # None while a program that dies again and again has to wait
    workers: dict[str, int]  # volume id to pid


def run(directory: Path) -> None:
    """Run a playground in `directory` until SIGTERM or SIGINT.

    Raises:
        DirectoryRefused: The folder cannot be used.
        SetupFailed: A program does not come up, or the volume is not published.
    """
    signals = StopSignals()
    with signals.noted(), occupied(directory) as workspace:

        async def play() -> None:
            await signals.or_done(lambda: _play(workspace))

        trio.run(play)


async def _play(workspace: Workspace) -> None:
    async with staged(workspace) as stage:
        try:
            await stage.publish()
        except CallFailed as error:
            raise SetupFailed(str(error)) from error
        await _check_served(stage)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stage.kubelet.keep_published, stage.restarts)
                await nursery.start(control.serve, workspace.control_socket, stage.vault.set_secret)
                seen = stage.changes.count
                _write_index(stage)
                nursery.start_soon(_keep_index, stage, seen)
                _greet(stage)
        finally:
            workspace.index.unlink(missing_ok=True)


async def _check_served(stage: Stage) -> None:
    seen = stage.changes.count
    with trio.move_on_after(_FIRST_WORKER_S):
        while not stage.workers:
            seen = await stage.changes.wait_beyond(seen)
    for name, path in stage.scene.paths(stage.kubelet.target).items():
        if await peek.content(path) is None:
            message = f"{path}, the file of {name!r}, cannot be read"
            raise SetupFailed(message)


async def _keep_index(stage: Stage, seen: int) -> None:
    """Write `playground.json` again after each change beyond the number `seen`."""
    while True:
        seen = await stage.changes.wait_beyond(seen)
        _write_index(stage)


def _write_index(stage: Stage) -> None:
    text = msgspec.json.format(msgspec.json.encode(_index(stage)), indent=2)
    stage.workspace.replace(stage.workspace.index, text + b"\n")


def _index(stage: Stage) -> Index:
    workspace, target = stage.workspace, stage.kubelet.target
    return Index(
        target=str(target),
        csi_socket=str(workspace.csi_socket),
        provider_socket=str(workspace.provider_socket),
        keeper_socket=str(workspace.keeper_socket),
        emulator_url=stage.emulator_url,
        secrets=stage.scene.paths(target),
        pids={name: program.pid for name, program in stage.programs.items()},
        workers=stage.workers,
    )


def _greet(stage: Stage) -> None:
    root, target = stage.workspace.root, stage.kubelet.target
    names = ", ".join(stage.scene.paths(target))
    click.echo(
        f"The playground runs until Ctrl-C or SIGTERM.\n"
        f"  secrets   {names}\n"
        f"  files     {target}\n"
        f"  change    akvfs playground set NAME VALUE --dir {root}\n"
        f"  pids      {stage.workspace.index}\n"
        f"  logs      {root / 'logs'}",
        err=True,
    )

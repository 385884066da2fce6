"""`akvfs demo`: a tour in which every claim is verified, in a folder that is gone afterwards."""

from __future__ import annotations

import contextlib
import grp
import os
import secrets
import signal
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from csi.cli import mounts, peek, pod, scene, traces
from csi.cli.container import Container, container
from csi.cli.errors import StepFailed
from csi.cli.podorders import (
    AwaitContent,
    AwaitEvents,
    CountReads,
    Finish,
    Happened,
    Hold,
    Part,
    Reads,
    Seen,
    StartReaders,
    StopReaders,
)
from csi.cli.screen import Screen, seconds
from csi.cli.signals import StopSignals
from csi.cli.stage import Stage, staged
from csi.cli.workspace import clean_up_stale, occupied

if TYPE_CHECKING:
    from csi.cli.layout import Workspace

_PREFIX: Final = "akvfs-demo-"
_SECRET: Final = scene.SECRETS[0]
_NEW_VALUE: Final = "Tr0ub4dor&3, rotated"
_ROTATION_S: Final = 10.0
_EVENTS_S: Final = 10.0
_KILLS: Final = 5
_READERS: Final = 4
_READS_BETWEEN: Final = 200
_NEW_WORKER_S: Final = 10.0
_LOOK_S: Final = 0.02
_GROUP: Final = 3  # the column of `ls -l`

_PROCESSES: Final = {
    "emulator": "a small Key Vault and Entra ID, on loopback",
    "provider": "reads the vault with the pod's credentials",
    "keeper": "mounts, and forks one worker for each volume",
    "node": "answers kubelet and decides what a volume shows",
}
_ROUTES: Final = {
    pod.PATH: "a new open by path",
    pod.DIRECTORY: "the folder that was open all the time",
    pod.BIND: "one file mounted alone, as with subPath,",
    pod.DATA: "..data, where a set of files is consistent,",
}
_EVENTS: Final = {
    pod.FILE: "MODIFY",
    pod.BIND: "MODIFY",
    pod.DIRECTORY: "MOVED_TO ..data",
}


def run() -> int:
    """Run the tour; return the exit code.

    Raises:
        CliError: A part did not come up, or a claim does not hold.
    """
    signals = StopSignals()
    screen = Screen()
    screen.title(
        "akvfs: Key Vault secrets as live files",
        "The whole driver on this machine. The vault is an emulator, kubelet is this program.",
    )
    parent = Path(tempfile.gettempdir()).resolve()
    with signals.noted(), ExitStack() as last_step:
        clean_up_stale(parent, _PREFIX)
        with occupied(parent / f"{_PREFIX}{secrets.token_hex(4)}") as workspace:

            async def play() -> None:
                await signals.or_done(lambda: _play(screen, workspace, last_step))

            trio.run(play)
        if signals.came is not None:
            screen.interrupted()
            return 128 + signals.came
        _verify_nothing_left(screen, workspace)
    screen.close()
    return 0


async def _play(screen: Screen, workspace: Workspace, last_step: ExitStack) -> None:
    """Take every step but the last, which begins here and ends when nothing runs any more."""
    async with AsyncExitStack() as stack:
        with screen.step(
            "Start the driver",
            "One process for each job: in a cluster only the keeper is privileged, and it neither "
            "has a network nor parses anything that a vault or a pod sends.",
        ):
            stage = await stack.enter_async_context(staged(workspace))
            _show_processes(screen, stage)
        await _publish(screen, stage)
        async with container(stage, _SECRET.file) as running:
            await _rotate(screen, stage, running)
            await _kill(screen, stage, running)
        await _unpublish(screen, stage)
        last_step.enter_context(
            screen.step(
                "The end of the driver",
                "Every process is told to stop, and the folder of this demo is removed.",
            )
        )


def _show_processes(screen: Screen, stage: Stage) -> None:
    rows = [(name, str(stage.programs[name].pid), does) for name, does in _PROCESSES.items()]
    screen.table(("process", "pid", "what it does"), rows)
    screen.verify("each of them answers", holds=all(row[1] != "None" for row in rows))


async def _publish(screen: Screen, stage: Stage) -> None:
    target = stage.kubelet.target
    with screen.step(
        "Publish: a pod starts",
        "Before the pod starts, kubelet asks the driver for its volume. It is there with its "
        "content, or the pod does not start.",
    ):
        started = time.monotonic()
        await stage.publish()
        screen.event("kubelet calls NodePublishVolume", f"OK in {_since(started)}")
        found = [mount for mount in mounts.at_or_below(target) if mount.is_ours]
        screen.verify(
            "the volume is a file system of its own, read-only for the host too",
            "fuse.akvfs, ro",
            holds=len(found) == 1 and "ro" in found[0].options,
        )
        listing = await peek.look(["ls", "-l", str(target)])
        screen.command("ls -l mount", listing.output.decode())
        screen.verify(
            "it shows the secrets that the class names, in the pod's group",
            holds=_listed(listing.output.decode()) == {_top(each.file) for each in scene.SECRETS},
        )
        refused = await peek.look(["touch", str(target / _SECRET.file)])
        message = refused.errors.replace(f"{target}/", "mount/")
        screen.command(f"touch mount/{_SECRET.file}", message)
        screen.verify("nobody can write to it", holds="Read-only file system" in message)
        for secret in scene.SECRETS:
            content = await peek.content(str(target / secret.file))
            screen.command(f"cat mount/{secret.file}", (content or b"").decode())
            screen.verify(
                "the content is what the vault holds", holds=content == secret.first.encode()
            )


async def _rotate(screen: Screen, stage: Stage, running: Container) -> None:
    with screen.step(
        "Rotate: the secret changes in the vault",
        "The pod runs on. What it opened before is open; nobody restarts or remounts anything. "
        "The driver asks the vault every second here.",
    ):
        first_half = await running.ask(Hold(), Part)
        version = await stage.vault.set_secret(_SECRET.name, _NEW_VALUE)
        changed = time.monotonic()
        screen.event(f"{_SECRET.name} is set to {_NEW_VALUE!r} in the vault", f"version {version}")
        seen = await running.ask(AwaitContent(_NEW_VALUE, _ROTATION_S), Seen)
        for route, claim in _ROUTES.items():
            at = seen.at[route]
            after = (
                "" if at is None else f"{seconds(max(0.0, at - changed))} after the vault had it"
            )
            screen.verify(f"{claim} shows the new value", after, holds=at is not None)
        screen.verify(
            "the file itself says which version it is (getfattr -n user.akv.version)",
            seen.version,
            holds=seen.version == version,
        )
    await _verify_events(screen, running)
    with screen.step(
        "A read held open across the rotation",
        "A program that was in the middle of the file must not get the end of another one.",
    ):
        second_half = await running.ask(Finish(), Part)
        whole = first_half.text + second_half.text
        screen.table(
            ("read before", "read after"), [(repr(first_half.text), repr(second_half.text))]
        )
        screen.verify(
            "both halves are of the old version", repr(whole), holds=whole == _SECRET.first
        )


async def _verify_events(screen: Screen, running: Container) -> None:
    with screen.step(
        "File events",
        "Programs that watch their files (inotify) reload at once. A subPath mount tells them too; "
        "on a tmpfs it would show its first content for ever.",
    ):
        happened = await running.ask(AwaitEvents(_EVENTS_S), Happened)
        for label, expected in _EVENTS.items():
            events = happened.events[label]
            screen.verify(
                f"a watcher of {label} was told", ", ".join(events), holds=expected in events
            )


async def _kill(screen: Screen, stage: Stage, running: Container) -> None:
    with screen.step(
        f"kill -9 of the worker, {_KILLS} times, under {_READERS} readers",
        "The process that answers every read dies, and a FUSE mount usually dies with it. Here the "
        "keeper holds the connection, and a new worker answers what was asked.",
    ):
        await running.ask(StartReaders(_NEW_VALUE, _READERS), Reads)
        await _await_reads(running)
        killed = []
        for _ in range(_KILLS):
            killed.append(await _kill_worker(stage))
            await _await_reads(running)
        reads = await running.ask(StopReaders(), Reads)
        screen.command(f"kill -9 {' '.join(map(str, killed))}")
        screen.verify("each time another worker took over", holds=len(set(killed)) == _KILLS)
        screen.verify(
            "no read failed",
            f"{reads.begun} begun, {len(reads.failures)} failed, "
            f"longest gap {seconds(reads.longest_gap)}",
            holds=not reads.failures and reads.begun == reads.completed,
        )


async def _kill_worker(stage: Stage) -> int:
    """Kill the worker; return its pid once the keeper has another one."""
    volume_id = stage.kubelet.volume.volume_id
    pid = stage.workers[volume_id]
    seen = stage.changes.count
    os.kill(pid, signal.SIGKILL)
    with trio.move_on_after(_NEW_WORKER_S):
        while stage.workers.get(volume_id) in {pid, None}:
            seen = await stage.changes.wait_beyond(seen)
        return pid
    message = f"no worker has taken the place of {pid} within {_NEW_WORKER_S:.0f} s"
    raise StepFailed(message)


async def _await_reads(running: Container) -> None:
    """Return when so many more reads have been completed."""
    first = (await running.ask(CountReads(), Reads)).completed
    with trio.move_on_after(_NEW_WORKER_S):
        completed = first
        while completed < first + _READS_BETWEEN:
            await trio.sleep(_LOOK_S)
            completed = (await running.ask(CountReads(), Reads)).completed
        return
    message = "the readers do not get on"
    raise StepFailed(message)


async def _unpublish(screen: Screen, stage: Stage) -> None:
    with screen.step(
        "Unpublish: the pod is gone",
        "Whatever happened before, an unpublish leaves nothing at the pod's folder.",
    ):
        started = time.monotonic()
        await stage.unpublish()
        screen.event("kubelet calls NodeUnpublishVolume", f"OK in {_since(started)}")
        target = stage.kubelet.target
        screen.verify("the mount is gone", holds=not mounts.at_or_below(target))
        screen.verify("kubelet could remove its folders", holds=not target.parent.exists())
        seen = stage.changes.count
        with trio.move_on_after(_NEW_WORKER_S):
            while stage.workers:
                seen = await stage.changes.wait_beyond(seen)
        screen.verify("the worker has ended", holds=not stage.workers)


def _verify_nothing_left(screen: Screen, workspace: Workspace) -> None:
    left = traces.left(workspace)
    screen.verify("no process, mount, socket or file is left", ", ".join(left), holds=not left)


def _listed(listing: str) -> set[str]:
    """Return the names in what `ls -l` printed that have the pod's group."""
    group = str(scene.VOLUME.group)
    with contextlib.suppress(KeyError):  # no group of this machine has the number
        group = grp.getgrgid(int(group)).gr_name
    lines = [line.split() for line in listing.splitlines()]
    return {line[-1] for line in lines if line[_GROUP : _GROUP + 1] == [group]}


def _top(path: str) -> str:
    return path.partition("/")[0]


def _since(started: float) -> str:
    return seconds(time.monotonic() - started)

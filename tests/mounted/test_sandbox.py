"""What a worker may do: tried as a worker, and read from outside of a real one."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from fusefs.client import KeeperClient
    from harness.programs import Program
    from harness.volumes import PublishedVolume

_REFUSED = {
    "open core_pattern": "ENOENT",
    "open another volume": "ENOENT",
    "open /etc/passwd": "ENOENT",
    "make a file": "EROFS",
    "signal a neighbour": "EPERM",
    "signal the keeper": "EPERM",
    "reach the keeper's socket": "ENOENT",
    "become root": "EPERM",
    "change root": "EPERM",
    "fork": "EAGAIN",
    "list network interfaces": "['lo']",
    "list the root": "[]",
    "leave by ..": "True",
    "descriptors": "none leads out",
    "uid": "(2000000500, 2000000500, 2000000500)",
    "gid": "(2000000500, 2000000500, 2000000500)",
    "groups": "[]",
    "core limit": "(0, 0)",
    "failing handler": "Input/output error",
}


async def test_worker_reaches_nothing_else(published: PublishedVolume, keeper_socket: Path) -> None:
    """Files, neighbours, keeper and socket are out of reach; links lead no child out of a mount."""
    neighbour = await published.worker_pid()
    arguments = [str(neighbour), str(keeper_socket), str(published.target / "user")]
    run = await trio.run_process(
        [sys.executable, "-m", "harness.sandboxed", *arguments],
        capture_stdout=True,
        capture_stderr=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["tests", "."])},
        check=False,
    )
    logged = run.stderr.decode()
    assert run.returncode == 0, logged
    assert json.loads(run.stdout) == _REFUSED
    assert "a handler failed" in logged
    assert "KeyError: 'a defect after the chroot'" in logged
    assert (published.target / "user").read_bytes()


async def test_worker_is_stripped_of_privileges(published: PublishedVolume) -> None:
    """A real worker has its own uid, no capabilities at all, no new privileges, no core dumps."""
    pid = await published.worker_pid()
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    )
    assert status["Name"] == "akvfs-worker"
    assert status["Uid"].split() == ["2000000000"] * 4
    assert status["Gid"].split() == ["2000000000"] * 4
    assert status["Groups"].strip() == ""
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert status["Threads"] == "1"
    for namespace in ("net", "ipc"):
        mine, its = (os.readlink(f"/proc/{who}/ns/{namespace}") for who in ("self", pid))
        assert mine != its
    limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
    assert re.search(r"Max core file size\s+0\s+0", limits)
    assert re.search(r"Max processes\s+1\s+1", limits)


async def test_keeper_has_no_network(keeper: Program, client: KeeperClient) -> None:
    """The keeper lives in a network namespace of its own, with nothing in it."""
    assert client.keeper_pid == keeper.pid
    mine, its = (os.readlink(f"/proc/{who}/ns/net") for who in ("self", keeper.pid))
    assert mine != its
    devices = Path(f"/proc/{keeper.pid}/net/dev").read_text(encoding="utf-8").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


async def test_worker_holds_exactly_what_it_needs(published: PublishedVolume) -> None:
    """A worker's descriptors: output, its device, control socket, snapshots, trio's own."""
    pid = await published.worker_pid()
    await published.rotate()
    assert descriptors(pid) == expected(generations=2)


def expected(*, generations: int) -> list[str]:
    """Return the kinds of descriptors that a worker holds; Python's mmap keeps a duplicate."""
    own = ["/dev/fuse", "socket", "memfd:akvfs-usage", *["output"] * 3]
    snapshots = ["secretmem"] * (2 * generations)
    trio_own = ["anon_inode:[eventpoll]", *["socket"] * 4]  # two socket pairs to wake itself
    libfuse_own = ["pipe", "pipe"]  # for splicing
    return sorted([*own, *snapshots, *trio_own, *libfuse_own])


def descriptors(pid: int | None) -> list[str]:
    """Return the kinds of descriptors that a process holds."""
    kinds = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{name}")
        if int(name) <= 2:
            kinds.append("output")
        elif target.startswith(("socket:", "pipe:")):
            kinds.append(target.partition(":")[0])
        else:
            kinds.append(
                target.removeprefix("/").removesuffix(" (deleted)") if "mem" in target else target
            )
    return sorted(kinds)


async def test_stopped_reader_of_memory_finds_no_dump(published: PublishedVolume) -> None:
    """A worker that crashes leaves no core file, and its secrets nowhere on disk."""
    pid = await published.worker_pid()
    assert pid is not None
    os.kill(pid, signal.SIGSEGV)
    with trio.fail_after(5):
        while await published.worker_pid() in (pid, None):
            await trio.sleep(0.01)
    assert not list(Path.cwd().glob("core*"))
    assert (published.target / "user").read_bytes()

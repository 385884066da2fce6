"""Minutes of rotations and kills: nothing grows, and in the end nothing is left."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from fakes.providersocket import mount_response
from harness.belongings import belongings, family
from harness.growth import Samples, generations
from harness.load import load, summary
from harness.node import Node, is_ready, running_node
from harness.refreshing import FLAGS, Numbered, left, rotates
from harness.volumes import LIVE_FILES, content
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.kubelet import PodVolume

MINUTES: Final = float(os.environ.get("SOAK_MINUTES", "10"))
WARM_UP_S: Final = 120.0
SAMPLE_S: Final = 5.0
PER_MINUTE: Final = 500  # rotations
VOLUMES: Final = 4
KILL_S: Final = {"worker": 7.0, "keeper": 61.0, "node server": 47.0}
DRIFT: Final = 0.05  # deaths of workers that leave a generation counted in use: fusefs/usage.py
SETTLED_S: Final = 40.0  # longer than generations are kept, on a busy machine

pytestmark = pytest.mark.timeout(MINUTES * 60 + 300)


class Soak:
    """The node, and what happens to it at which time."""

    def __init__(self, node: Node, volumes: Sequence[PodVolume]) -> None:
        """Begin now."""
        self._node = node
        self._volumes = volumes
        self._began = time.monotonic()
        self._due = {"sample": WARM_UP_S, **KILL_S}
        self._chance = random.Random(1)
        self.samples = Samples()
        self.kills = dict.fromkeys(KILL_S, 0)

    def run(self) -> None:
        """Sample and kill until the time is over."""
        while (now := time.monotonic() - self._began) < MINUTES * 60:
            what = min(self._due, key=self._due.__getitem__)
            if self._due[what] > now:
                threading.Event().wait(self._due[what] - now)
            self._due[what] += KILL_S.get(what, SAMPLE_S)
            if what == "sample":
                self.samples.take(time.monotonic() - self._began, self._processes())
            else:
                self._kill(what)
                self.kills[what] += 1

    def _processes(self) -> dict[str, int]:
        node = self._node
        workers = {
            f"worker {self._number(found.target)}": found.worker_pid
            for found in node.keeper_volumes()
            if found.worker_pid is not None
        }
        return {"node server": node.server.pid, "keeper": node.keeper.pid, **workers}

    def _number(self, target: str) -> int:
        return [str(volume.target) for volume in self._volumes].index(target)

    def _kill(self, what: str) -> None:
        node = self._node
        if what == "worker":
            workers = [found.worker_pid for found in node.keeper_volumes() if found.worker_pid]
            os.kill(self._chance.choice(workers), signal.SIGKILL)
            return
        program = node.keeper if what == "keeper" else node.server
        program.kill()
        program.restart()
        program.wait_until(lambda: is_ready(node.identity), "the node is ready")
        for volume in self._volumes:
            node.publish(volume)  # as kubelet does each minute


def test_nothing_grows(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Descriptors, memory, generations, mounts and processes stay, and no read fails."""
    directory = tmp_path_factory.mktemp("akvfs")
    with running_node(directory, server_flags=FLAGS) as node:
        volumes = [node.volume() for _ in range(VOLUMES)]
        node.provider.answer = Numbered()
        for volume in volumes:
            node.publish(volume)
        before = settled(node, VOLUMES)
        readers = {
            "python": ("pair", volumes[0].target),
            "shell": ("sh", volumes[1].target / "user"),
        }
        with load(directory / "load", readers) as running:
            soak = Soak(node, volumes)
            soak.run()
            rotates(volumes[0], running)
            reports = running.stop()
        rotations = sum(found.generation - 1 for found in node.keeper_volumes())
        print(f"\n{soak.samples.table()}\n{summary(reports)}")
        print(f"{rotations} rotations in {MINUTES:g} min, kills {soak.kills}")
        deaths = soak.kills["worker"] + VOLUMES * soak.kills["keeper"]
        assert settled(node, VOLUMES + round(deaths * DRIFT)) == before
        for volume in volumes:
            node.unpublish(volume)
            volume.remove()
        eventually(lambda: not left(node), "nothing is left", timeout_s=SETTLED_S)
    assert not any(report.faults for report in reports), summary(reports)
    assert not soak.samples.growing(), soak.samples.table()
    assert rotations >= PER_MINUTE * MINUTES


def settled(node: Node, most: int) -> dict[str, int]:
    """Count mounts and processes once volumes that do not change have so few generations."""
    last = node.provider.answer
    same = mount_response({path: content(path, 1) for path in LIVE_FILES})
    node.provider.answer = lambda *_: same
    programs = [node.keeper.pid, node.server.pid]

    def kept() -> int:
        return generations(one for pid in programs for one in family(pid))[0]

    eventually(lambda: kept() <= most, f"{most} generations are left", timeout_s=SETTLED_S)
    print(f"{kept()} generations of {VOLUMES} volumes")
    found = belongings(node.class_dir.parent, programs)
    node.provider.answer = last
    return {name: found[name] for name in ("mounts", "processes")}

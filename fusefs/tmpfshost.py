"""A volume on a tmpfs: the same messages and snapshots, and no process that serves it.

The state machine is that of every volume. What a worker does elsewhere is done here by a child
that writes each generation, or at once:

==============  ====================================
asked for       done
==============  ====================================
a worker        the tmpfs is mounted
priming         a child writes the first generation
a swap          a child writes the generation
a touch         nothing: one rename has shown it all
freezing        nothing: nobody serves a tmpfs
==============  ====================================

The kernel keeps a tmpfs without any process, so the node server holds nothing of it: a keeper that
starts anew finds it at the target when the volume is published again.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

from typing_extensions import override

from fusefs import atomicwriter, effects, protocol, sandbox
from fusefs.basehost import Host, Owner, Place
from fusefs.emptying import empty_target
from fusefs.errors import VolumeFailed
from fusefs.kept import KeptGenerations
from fusefs.loop import Loop
from fusefs.snapshot import Snapshot
from fusefs.target import Target
from fusefs.tmpfs import Tmpfs
from fusefs.volume import Volume

log = logging.getLogger(__name__)

_UNWRITTEN: Final = "it could not be written to the tmpfs; see the keeper's log"


class TmpfsHost(Host):
    """One volume on a tmpfs, a new one or one that was found at the target."""

    filesystem: ClassVar[protocol.Filesystem] = "tmpfs"

    def __init__(
        self,
        loop: Loop,
        place: Place,
        held: Target,
        kept: KeptGenerations,
        owner: Owner,
        *,
        volume_id: str,
        record: bytes,
        state: Volume,
        reason: str,
        adopted: bool,
    ) -> None:
        """Own `held` and `kept` from now on; with `adopted`, go on with what the target shows."""
        super().__init__(
            loop, place, held, kept, owner, volume_id=volume_id, record=record, state=state
        )
        self.reason = reason
        self._adopted = adopted
        self._shown = False
        self._tmpfs: Tmpfs | None = None

    @property
    @override
    def worker_pid(self) -> int | None:
        return None

    @property
    @override
    def memory_bytes(self) -> int:
        return 2 * self.kept.size  # once as a snapshot, once as files

    @override
    def holdings(self) -> list[tuple[protocol.KeeperNotice, tuple[int, ...]]]:
        """Return nothing: the kernel holds it."""
        return []

    @property
    @override
    def _mounted(self) -> Tmpfs:
        assert self._tmpfs is not None  # noqa: S101 - mounted before anything else is asked for
        return self._tmpfs

    @override
    def _carry_out_one(self, effect: effects.Effect) -> None:  # noqa: C901, PLR0912 - one case an effect
        match effect:
            case effects.ClearTarget() if self._adopted:
                self._target_cleared(0)
            case effects.ClearTarget():
                empty_target(self._target, self._children, self._target_cleared)
            case effects.StartWorker():
                self._mount()
            case effects.StartPriming():
                self._write(self.state.acknowledged, self._first_written)
            case effects.EndPriming():
                self._carry_out(self.state.priming_ended())
            case effects.Attach():
                self._attach()
            case effects.SendSwap(rotation=rotation):
                self._write(rotation.generation, self._written)
            case effects.Discard(generation=generation):
                self.kept.drop([generation], spare=())
            case effects.StartTouch():
                self._carry_out(self.state.touch_acknowledged())
                self._carry_out(self.state.touch_ended(busy=()))
            case effects.Answer(ticket=ticket, error=error):
                self._owner.answer(ticket, error)
            case effects.RetryLater(delay_s=delay):
                self._later(delay, lambda: self._carry_out(self.state.retry()))
            case effects.Fossilize():
                self._carry_out(self.state.worker_freezes())
            case effects.Fill():
                self._carry_out(self.state.filled(succeeded=True))
            case effects.Drain():
                self._carry_out(self.state.drained())
            case effects.LetGo():
                self._tear_down(keep_target=True)
            case effects.TearDown():
                # Where nothing was shown yet, a pod may use what was found.
                self._tear_down(keep_target=self._adopted and not self._shown)

    def _mount(self) -> None:
        private = self.place.private
        if self._adopted:
            self._tmpfs = Tmpfs.adopt(private, self._target)
        else:
            self._tmpfs = Tmpfs.create(private, selinux_context=self.place.selinux_context)
        self._carry_out(self.state.worker_ready())

    def _attach(self) -> None:
        if not self._mounted.is_on(self._target):
            self._mounted.attach(self._target)
        self._shown = True
        self._carry_out(self.state.attached())

    def _write(self, generation: int, written: Callable[[int, int], None]) -> None:
        """Let a child write a generation, and call `written` with it and the exit code."""
        snapshot, digest = self.kept.descriptor(generation), self.kept.digest(generation)

        def run() -> int:
            atomicwriter.write(Snapshot.map(os.dup(snapshot), digest), Path())
            return 0

        mount = self._mounted.open_mount()
        try:
            self._children.start(
                run,
                lambda code: written(generation, code),
                directory=mount,
                identity=sandbox.Identity(
                    uid=self.place.uid, capabilities=atomicwriter.CAPABILITIES
                ),
                descriptors=(snapshot,),
            )
        finally:
            os.close(mount)

    def _first_written(self, _: int, code: int) -> None:
        if code:
            error = VolumeFailed(f"its content cannot be shown: {_UNWRITTEN}")
            self._carry_out(self.state.effect_failed(effects.StartPriming(), error))
        else:
            self._carry_out(self.state.primed_by_child(succeeded=True))

    def _written(self, generation: int, code: int) -> None:
        if code:
            self._carry_out(self.state.rejected(generation, _UNWRITTEN))
            return
        self._carry_out(self.state.swapped(generation))
        older = [number for number in self.kept.generations() if number < generation]
        self.kept.drop(older, spare=self.state.spared())

    @override
    def _unmount(self) -> None:
        if self._tmpfs is not None:
            self._tmpfs.close()

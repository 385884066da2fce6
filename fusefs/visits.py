"""Visits to a volume's private mount: children that prime it, carry out a plan, fill caches.

The keeper itself never asks the mount anything: were the worker dead, it would wait for itself.
"""

import os
from collections.abc import Callable

from fusefs import freeze, plan, sandbox, touch
from fusefs.children import Children
from fusefs.connection import Connection
from fusefs.effects import Rotation
from fusefs.kept import KeptGenerations
from fusefs.loop import Loop

Ended = Callable[[int], None]


class Visits:
    """Starts the children of one volume; each is told where it is, and ends by itself."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        mounted: Callable[[], Connection],
        kept: KeptGenerations,
        *,
        uid: int,
    ) -> None:
        """Visit what `mounted` returns, as `uid`."""
        self._loop = loop
        self._children = children
        self._mounted = mounted
        self._kept = kept
        self._uid = uid

    def prime(self, ended: Ended) -> None:
        """Let the kernel learn what the worker does not answer; `ended` gets the exit code."""
        self._start(touch.prime, ended)

    def touch(
        self,
        rotation: Rotation,
        only: tuple[str, ...] | None,
        acknowledged: Callable[[], None],
        ended: Callable[[touch.Report, int], None],
    ) -> None:
        """Carry out a plan, or only raise the events for the files `only`.

        Args:
            rotation: Whose plan.
            only: None for all of it.
            acknowledged: Called when every name follows the plan.
            ended: Called with what was reported and the exit code.
        """
        device = self._mounted().device
        forgotten = [number for number in self._kept.generations() if number < rotation.generation]
        report = touch.Report(self._loop, acknowledged)

        def run() -> int:
            steps = plan.decode(rotation.plan)
            if only is None:
                touch.carry_out(steps, report.child_end)
                touch.forget_generations(device, forgotten)
            touch.notify(steps.changed if only is None else only, report.child_end)
            return 0

        def reported(code: int) -> None:
            report.finish()
            ended(report, code)

        try:
            self._start(run, reported, descriptors=(device, report.child_end.fileno()))
        finally:
            report.close_child_end()

    def fill(self, generation: int, ended: Ended) -> None:
        """Make the kernel know `generation`, and those before it that are kept, by heart."""
        device = self._mounted().device
        snapshots = [
            (descriptor, self._kept.digest(number))
            for number, descriptor in self._kept.descriptors(up_to=generation)
        ]
        descriptors = (device, *(descriptor for descriptor, _ in snapshots))
        self._start(lambda: freeze.fill(device, snapshots), ended, descriptors)

    def _start(
        self, function: Callable[[], int], ended: Ended, descriptors: tuple[int, ...] = ()
    ) -> None:
        mount = self._mounted().open_mount()
        try:
            self._children.start(
                function,
                ended,
                directory=mount,
                identity=sandbox.Identity(uid=self._uid, capabilities=(sandbox.CAP_DAC_OVERRIDE,)),
                descriptors=descriptors,
            )
        finally:
            os.close(mount)

"""Faults on command: which request suffers, how often, and how."""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from provider.emulator.requestlog import Trace


class FaultKind(enum.Enum):
    """What happens to a request."""

    THROTTLE = "throttle"  # 429, with Retry-After when `retry_after` is given
    SLOW = "slow"  # waits `seconds`, then answers with what holds at that time
    RESET = "reset"  # TCP reset in place of an answer
    TRUNCATE = "truncate"  # half of the body, then the end of the connection
    ERROR = "error"  # `status`, 500 unless given


@attrs.define(kw_only=True)
class Fault:
    """One fault; what is None matches everything.

    Only `operation` None does not: it stands for requests that have proved who sent them. A
    challenge would otherwise use up the fault of count 1 that is meant for the read after it.
    """

    kind: FaultKind
    vault: str | None = None
    name: str | None = None
    operation: str | None = None  # a kind of the request log
    count: int | None = 1  # None: until cleared
    seconds: float = 1.0
    retry_after: int | None = None
    status: int = 500

    def problem(self) -> str | None:
        """Return what is wrong with the numbers, if anything."""
        if self.count is not None and self.count < 1:
            return f"count: {self.count} faults strike nobody; give 1 or more, or none for all"
        if not 0 <= self.seconds < math.inf:
            return f"seconds: cannot wait for {self.seconds}; give 0 or more"
        if self.retry_after is not None and self.retry_after < 0:
            return f"retry_after: {self.retry_after} is in the past; give 0 or more"
        if not 400 <= self.status < 600:  # noqa: PLR2004 - HTTP's range of errors
            return f"status: {self.status} is no HTTP error; give 400 to 599"
        return None

    def matches(self, trace: Trace) -> bool:
        """Tell whether this fault is meant for a request."""
        if self.operation is None and trace.principal is None:
            return False
        return (
            self.operation in {None, trace.kind}
            and _same(self.vault, trace.vault)
            and _same(self.name, trace.name)
        )


class FaultPlan:
    """The faults that wait, oldest first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Add a fault behind the others."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Drop all faults."""
        self._faults.clear()

    def take(self, trace: Trace) -> Fault | None:
        """Return the first fault that is meant for a request, and count it down."""
        for fault in self._faults:
            if not fault.matches(trace):
                continue
            if fault.count is not None:
                fault.count -= 1
                if fault.count <= 0:
                    self._faults.remove(fault)
            trace.fault = fault.kind.value
            return fault
        return None


def _same(wanted: str | None, actual: str | None) -> bool:
    return wanted is None or (actual is not None and wanted.lower() == actual.lower())

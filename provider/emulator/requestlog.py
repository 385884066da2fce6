"""Which requests came, by kind: never a value, a token or a secret.

Kinds: `token`, `discovery` (OIDC and instance discovery), `challenge` (a vault request without a
token, answered 401), `secret-get`, `secret-set`, `secret-update`, `secret-delete`, `secret-list`,
`version-list`, `deleted-get`, `deleted-list`, `secret-recover`, `secret-purge`, `unknown`.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

CAPACITY = 100_000  # entries; the oldest go first


@attrs.frozen(kw_only=True)
class LogEntry:
    """One request, as it was answered."""

    number: int  # counts up from 1 and is never reused, also not after a reset
    time: float  # Unix seconds at the answer
    kind: str
    status: int  # 0 where the connection was reset in place of an answer
    vault: str | None = None
    name: str | None = None
    version: str | None = None
    principal: str | None = None  # its name in the configuration; a client id nobody knows as sent
    fault: str | None = None  # the fault that struck


@attrs.define
class Trace:
    """What becomes known of a request while it is answered."""

    kind: str = "unknown"
    vault: str | None = None
    name: str | None = None
    version: str | None = None
    principal: str | None = None
    fault: str | None = None


class RequestLog:
    """The last `CAPACITY` requests."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._number = 0
        self._entries: collections.deque[LogEntry] = collections.deque(maxlen=CAPACITY)

    def add(self, trace: Trace, status: int) -> None:
        """Note a request that was answered."""
        self._number += 1
        entry = LogEntry(
            number=self._number,
            time=self._clock(),
            status=status,
            **attrs.asdict(trace),
        )
        self._entries.append(entry)

    def entries(self, kind: str | None = None, after: int = 0) -> list[LogEntry]:
        """Return the entries of one kind, or all, that came after an entry's number."""
        return [
            entry for entry in self._entries if entry.number > after and kind in {None, entry.kind}
        ]

    def reset(self) -> None:
        """Forget all entries; the numbers go on."""
        self._entries.clear()

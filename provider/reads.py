"""Reading the objects of one mount: a few at a time, within the caller's time.

The vault is behind two small protocols, so that everything above is tested without one, and so
that reads can later be shared between mounts that proved the same identity: `VaultAccess` stands
for one identity at one vault, and this module is the only caller of its readers.

The first object is read alone. It pays for the challenge and the token, which the others then
share, and a wrong secret costs one refused request and not one per object.

The threads are daemons on purpose. A name that does not resolve or a peer that sends one byte per
second can hold a thread beyond any timeout that the libraries offer; the caller's answer and the
end of the process must not wait for it.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from provider.errors import ProviderError
from provider.objects import naming
from provider.retry import patiently

if TYPE_CHECKING:
    from collections.abc import Mapping

    from provider.budget import Budget
    from provider.model import SecretBundle, ServicePrincipal, Vault
    from provider.objects import VaultObject

log = logging.getLogger(__name__)

READERS: Final = 4  # per mount: 16 objects in 4 round trips, and no burst that a vault would notice


@attrs.frozen(kw_only=True)
class SecretRef:
    """Which secret is read; an empty version is the current one."""

    name: str
    version: str


class SecretReader(Protocol):
    """Reads secrets for one thread."""

    def read(self, ref: SecretRef, budget: Budget) -> SecretBundle:
        """Return one secret.

        Raises:
            ProviderError: as `provider.errors` says; nothing else leaves.
        """
        ...


class VaultAccess(Protocol):
    """One identity at one vault."""

    def reader(self) -> SecretReader:
        """Return a reader for the calling thread."""
        ...


class Vaults(Protocol):
    """All vaults of all clouds."""

    def access(self, vault: Vault, identity: ServicePrincipal) -> VaultAccess:
        """Return access to a vault. The identity is proved by the first read, not here."""
        ...


def read_all(
    wanted: Mapping[SecretRef, VaultObject],
    access: VaultAccess,
    budget: Budget,
    *,
    readers: int = READERS,
) -> dict[SecretRef, SecretBundle]:
    """Read every secret, or raise the error of the first one, in their order, that failed.

    Args:
        wanted: The secrets, each with the object that errors name.
        access: Where to read.
        budget: The caller's time.
        readers: How many are read at once.

    Raises:
        ProviderError: one could not be read; no later one was begun after that.
        DeadlineExceeded: the time was used up first.
    """
    if not wanted:
        return {}
    crew = _Crew(wanted, access, budget)
    budget.on_cancel(crew.wake)
    crew.hire(1)
    crew.gather(1)
    crew.hire(min(readers, len(wanted)) - 1)
    crew.gather(len(wanted))
    return crew.bundles


class _Crew:
    """The threads of one mount and what they have brought so far.

    `_begun` and `_failed` are guarded by `_lock`. Everything else belongs to the calling thread,
    which learns of results through the queue alone.
    """

    def __init__(
        self, wanted: Mapping[SecretRef, VaultObject], access: VaultAccess, budget: Budget
    ) -> None:
        self.bundles: dict[SecretRef, SecretBundle] = {}
        self._wanted = list(wanted.items())
        self._access = access
        self._budget = budget
        self._errors: dict[int, BaseException] = {}
        self._finished: set[int] = set()
        self._outcomes: queue.SimpleQueue[tuple[int, SecretBundle | BaseException] | None] = (
            queue.SimpleQueue()
        )
        self._lock = threading.Lock()
        self._begun = 0  # objects are begun in order, so this many from the first on
        self._allowed = 1  # the first is read alone
        self._failed = False

    def hire(self, count: int) -> None:
        """Start threads; from the second call on all objects may be begun."""
        if count <= 0:
            return
        for _ in range(count):
            threading.Thread(target=self._work, name="akvfs-read", daemon=True).start()

    def wake(self) -> None:
        """Make `gather` look at the budget."""
        self._outcomes.put(None)

    def gather(self, count: int) -> None:
        """Wait until the first `count` objects are read.

        Raises:
            ProviderError: the first object in order that failed.
            DeadlineExceeded: the time is used up.
        """
        while len(self.bundles) < count:
            self._raise_first_error()
            try:
                outcome = self._outcomes.get(timeout=self._budget.remaining())
            except queue.Empty:
                outcome = None
            if outcome is None:
                with naming(self._first_unfinished()):
                    self._budget.check()
                continue
            index, result = outcome
            self._finished.add(index)
            if isinstance(result, BaseException):
                self._errors[index] = result
            else:
                self.bundles[self._wanted[index][0]] = result

    def _raise_first_error(self) -> None:
        """Raise the error of the first failed object once nothing before it can still fail."""
        if self._errors and all(at in self._finished for at in range(min(self._errors))):
            raise self._errors[min(self._errors)]

    def _first_unfinished(self) -> VaultObject:
        """Return the object for which the caller waits."""
        at = next(at for at in range(len(self._wanted)) if at not in self._finished)
        return self._wanted[at][1]

    def _take(self) -> int | None:
        """Return the index of the next object, None when there is none to begin."""
        with self._lock:
            if self._failed or self._begun == len(self._wanted) or not self._budget.remaining():
                return None
            self._begun += 1
            return self._begun - 1

    def _work(self) -> None:
        """Read objects until there are none left or one failed."""
        reader: SecretReader | None = None
        while (index := self._take()) is not None:
            ref, wanted = self._wanted[index]
            result: SecretBundle | BaseException
            try:
                reader = reader or self._access.reader()
                with naming(wanted):
                    result = self._read(reader, ref)
            except ProviderError as error:
                result = error
            except Exception as error:  # noqa: BLE001  the caller's thread raises it
                result = error
            if isinstance(result, BaseException):
                with self._lock:
                    self._failed = True
            self._outcomes.put((index, result))

    def _read(self, reader: SecretReader, ref: SecretRef) -> SecretBundle:
        """Read one secret, again after trouble that may pass."""
        return patiently(lambda: reader.read(ref, self._budget), self._budget)

"""SecretProviderClasses from the Kubernetes API, watched where they are used.

A namespace is watched from the first look-up on and as long as volumes of this node are in it.
While its watch is in step, a look-up is answered from memory, unless the class is unknown: it may
have been created a moment ago. Otherwise the API is asked; if it does not answer, what was last
known counts, so that a secret goes on rotating while the API is away.

A class whose content changed is told to whoever refreshes volumes.
"""

import logging
import random
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import attrs
import trio
from typing_extensions import override

from csi import logkeys
from csi.classes import ClassSource, ProviderClass
from csi.errors import (
    ApiError,
    ApiExpired,
    ApiUnavailable,
    ClassesUnavailable,
    ClassNotFound,
    ClassUnusable,
)

log = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 60.0
_SWEEP_S: Final = 60.0

Found = ProviderClass | ClassUnusable


@attrs.frozen(kw_only=True)
class ClassList:
    """All classes of a namespace at one moment, by name."""

    version: str
    classes: Mapping[str, Found]


@attrs.frozen(kw_only=True)
class ClassEvent:
    """A change of one class.

    Attributes:
        version: Where a later watch goes on.
        name: The class; empty if the event brings the version only.
        found: The class as it is now; None when it was deleted.
    """

    version: str
    name: str = ""
    found: Found | None = None


class ClassStream(Protocol):
    """The changes in one namespace, as they come."""

    async def next(self) -> ClassEvent | None:
        """Wait for a change; None when the server has ended the watch, which is no failure.

        Raises:
            ApiError: The watch is broken.
        """
        ...


class ClassApi(Protocol):
    """What of the Kubernetes API is needed here."""

    async def get_class(self, namespace: str, name: str) -> Found:
        """Return a class as the server has it now.

        Raises:
            ClassNotFound: There is none.
            ApiError: There is no answer.
        """
        ...

    async def list_classes(self, namespace: str) -> ClassList:
        """Return all classes of a namespace.

        Raises:
            ApiError: There is no answer.
        """
        ...

    def watch_classes(
        self, namespace: str, version: str
    ) -> AbstractAsyncContextManager[ClassStream]:
        """Watch a namespace from a version on.

        Raises:
            ApiError: The watch is refused.
        """
        ...


@attrs.define(kw_only=True)
class _Namespace:
    """What is known of a namespace.

    Attributes:
        classes: By name; None for one that is known not to exist.
        in_step: Whether `classes` follows the server.
        scope: Ends the watch.
    """

    classes: dict[str, Found | None] = attrs.field(factory=dict)
    in_step: bool = False
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class WatchedClasses(ClassSource):
    """Classes from the Kubernetes API."""

    def __init__(
        self,
        api: ClassApi,
        *,
        in_use: Callable[[], Collection[str]],
        on_changed: Callable[[str, str], None],
    ) -> None:
        """Watch when `run`.

        Args:
            api: Where the classes are.
            in_use: Returns the namespaces with volumes on this node.
            on_changed: Told namespace and name of a class whose content has changed.
        """
        self._api = api
        self._in_use = in_use
        self._on_changed = on_changed
        self._namespaces: dict[str, _Namespace] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def watched(self) -> frozenset[str]:
        """The namespaces that are watched."""
        return frozenset(self._namespaces)

    async def run(self) -> None:
        """Watch namespaces until cancelled. Without it, each look-up asks the API."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while True:
                    await trio.sleep(_SWEEP_S)
                    self.sweep()
            finally:
                self._nursery = None
                self._namespaces.clear()

    def sweep(self) -> None:
        """Stop watching where no volume is any more."""
        for namespace in self._namespaces.keys() - set(self._in_use()):
            self._namespaces.pop(namespace).scope.cancel()
            log.debug("watch of a namespace ends", extra={logkeys.NAMESPACE: namespace})

    @override
    async def get(self, namespace: str, name: str) -> ProviderClass:
        """See `ClassSource.get`."""
        known = self._follow(namespace)
        found = known.classes.get(name) if known is not None and known.in_step else None
        if found is None:
            found = await self._ask(namespace, name)
        if isinstance(found, ClassUnusable):
            raise found.with_traceback(None)  # kept and raised again; its trace would grow
        return found

    async def _ask(self, namespace: str, name: str) -> Found:
        known = self._namespaces.get(namespace) or _Namespace()
        try:
            found = await self._api.get_class(namespace, name)
        except ClassNotFound:
            known.classes.setdefault(name, None)  # so that its appearance is told
            raise
        except ApiError as error:
            before = known.classes.get(name)
            if before is None:
                message = f"failed to get secretproviderclass {namespace}/{name}, error: {error}"
                raise ClassesUnavailable(message) from error
            log.warning(
                "the class cannot be read; it is used as it was",
                extra={logkeys.CLASS: f"{namespace}/{name}", logkeys.ERROR: str(error)},
            )
            return before
        if not known.in_step or known.classes.get(name) is None:
            known.classes[name] = found
        # What the watch brought meanwhile may be newer, and would not be told again.
        return known.classes[name] or found

    def _follow(self, namespace: str) -> _Namespace | None:
        """Return what is known of a namespace, which is watched from now on."""
        known = self._namespaces.get(namespace)
        if known is None and self._nursery is not None:
            known = self._namespaces[namespace] = _Namespace()
            self._nursery.start_soon(self._watch, namespace, known)
        return known

    async def _watch(self, namespace: str, known: _Namespace) -> None:
        delay = _FIRST_RETRY_S
        with known.scope:
            while True:
                pause = _FIRST_RETRY_S
                fields: dict[str, object] = {logkeys.NAMESPACE: namespace}
                try:
                    await self._keep_in_step(namespace, known)
                except ApiExpired:
                    log.debug("watch expired; listing again", extra=fields)
                except ApiError as error:
                    delay = _FIRST_RETRY_S if known.in_step else min(delay * 2, _LAST_RETRY_S)
                    advice = error.retry_after if isinstance(error, ApiUnavailable) else 0.0
                    pause = max(delay, advice)
                    log.warning(
                        "watch of a namespace lost; trying again",
                        extra=fields | {logkeys.ERROR: str(error), logkeys.SECONDS: pause},
                    )
                except Exception:
                    # The other namespaces, and the node server with them, must live.
                    log.exception("defect in a watch; trying again", extra=fields)
                    pause = _LAST_RETRY_S
                known.in_step = False
                await trio.sleep(pause * random.uniform(1.0, 1.5))  # noqa: S311 - spreads load

    async def _keep_in_step(self, namespace: str, known: _Namespace) -> None:
        """List, then follow the changes until something is wrong with them."""
        listed = await self._api.list_classes(namespace)
        for name in known.classes.keys() | listed.classes.keys():
            self._take(namespace, known, name, listed.classes.get(name))
        known.in_step = True
        version = listed.version
        while True:
            async with self._api.watch_classes(namespace, version) as stream:
                started = trio.current_time()
                while (event := await stream.next()) is not None:
                    version = event.version
                    if event.name:
                        self._take(namespace, known, event.name, event.found)
            if trio.current_time() - started < _FIRST_RETRY_S:
                await trio.sleep(_FIRST_RETRY_S)  # a server that ends watches at once

    def _take(self, namespace: str, known: _Namespace, name: str, found: Found | None) -> None:
        """Note a class; tell of it if somebody asked for it before and it says something else."""
        told = name in known.classes and found is not None and not _same(known.classes[name], found)
        known.classes[name] = found
        if told:
            log.info("class changed", extra={logkeys.CLASS: f"{namespace}/{name}"})
            self._on_changed(namespace, name)


def _same(before: Found | None, now: Found) -> bool:
    if isinstance(before, ClassUnusable) and isinstance(now, ClassUnusable):
        return str(before) == str(now)
    return before == now

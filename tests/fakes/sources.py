"""Classes and providers in memory, for tests of what stands above them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from typing_extensions import override

from csi.classes import ClassSource, ProviderClass
from csi.errors import ClassNotFound
from csi.providers import ProviderClient
from csi.records import MountCall, MountReply, ObjectVersion, ReturnedFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


class FakeClasses(ClassSource):
    """Classes by namespace and name."""

    def __init__(self) -> None:
        """Start without classes."""
        self.classes: dict[tuple[str, str], ProviderClass] = {}

    def put(
        self,
        name: str = "vault",
        *,
        namespace: str = "shop",
        provider: str = "azure",
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        """Create a class, or change it."""
        self.classes[namespace, name] = ProviderClass(
            namespace=namespace,
            name=name,
            provider=provider,
            parameters={"keyvaultName": "kv"} if parameters is None else parameters,
        )

    @override
    async def get(self, namespace: str, name: str) -> ProviderClass:
        """Return a class."""
        await trio.lowlevel.checkpoint()
        if (namespace, name) not in self.classes:
            raise ClassNotFound(namespace, name)
        return self.classes[namespace, name]


def reply_of(files: Mapping[str, bytes], version: str = "v1") -> MountReply:
    """Return the reply of a provider that knows `files`."""
    return MountReply(
        files=tuple(
            ReturnedFile(path=path, mode=0o644, content=content) for path, content in files.items()
        ),
        versions=tuple(ObjectVersion(f"secret/{path}", version) for path in files),
    )


class FakeProviders(ProviderClient):
    """One provider under every name.

    Attributes:
        files: What it knows.
        version: The version of all of it.
        calls: When it was called, and with what.
        hook: Called before each answer; may raise or wait.
    """

    def __init__(self) -> None:
        """Start with one secret."""
        self.files: dict[str, bytes] = {"password": b"first"}
        self.version = "v1"
        self.calls: list[tuple[float, MountCall]] = []
        self.hook: Callable[[MountCall], Awaitable[None]] | None = None

    def rotate(self, **files: bytes) -> None:
        """Change secrets in the vault."""
        self.files.update(files)
        self.version = f"v{int(self.version[1:]) + 1}"

    @property
    def times(self) -> list[float]:
        """When it was called, by the clock of trio."""
        return [moment for moment, _ in self.calls]

    @override
    async def mount(self, provider: str, call: MountCall) -> MountReply:
        """Answer with everything it knows."""
        self.calls.append((trio.current_time(), call))
        await trio.lowlevel.checkpoint()
        if self.hook is not None:
            await self.hook(call)
        return reply_of(self.files, self.version)

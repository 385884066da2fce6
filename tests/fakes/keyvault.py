"""Vaults in memory, with hooks: what the provider reads when a test needs no network."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Final

import attrs

from provider.errors import NotFound
from provider.model import Cloud, SecretBundle, SecretBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from provider.budget import Budget
    from provider.model import ServicePrincipal, Vault
    from provider.reads import SecretRef

CLOUD: Final = Cloud(
    name="Test", authority="https://login.test/", vault_suffix="vault.test", custom=True
)


@attrs.define
class FakeVaults:
    """Answers from a dictionary.

    Attributes:
        values: Text of each secret.
        before_read: Called with each reference before it is answered; may block or raise.
        reads: Every reference that was asked for, in order.
        opened: Every vault and identity for which access was asked.
        readers: How many readers were made.
    """

    values: dict[str, str] = attrs.field(factory=dict)
    before_read: Callable[[SecretRef], None] = lambda _: None
    reads: list[SecretRef] = attrs.field(factory=list)
    opened: list[tuple[Vault, ServicePrincipal]] = attrs.field(factory=list)
    readers: int = 0
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def access(self, vault: Vault, identity: ServicePrincipal) -> FakeVaults:
        """Note who asks for access."""
        self.opened.append((vault, identity))
        return self

    def reader(self) -> FakeVaults:
        """Count a reader."""
        with self._lock:
            self.readers += 1
        return self

    def read(self, ref: SecretRef, budget: Budget) -> SecretBundle:
        """Return a secret, or the error that a vault without it gives."""
        budget.check()
        with self._lock:
            self.reads.append(ref)
        self.before_read(ref)
        if ref.name not in self.values:
            message = f"SecretNotFound {ref.name}"
            raise NotFound(message)
        version = ref.version or "current"
        return SecretBundle(
            value=SecretBytes(self.values[ref.name]),
            object_id=f"https://kv.vault.test/secrets/{ref.name}/{version}",
        )


@attrs.define
class FakeClouds:
    """Knows one cloud.

    Attributes:
        asked: The names and files that were asked for.
        failure: Raised in place of an answer.
    """

    asked: list[tuple[str, str]] = attrs.field(factory=list)
    failure: Exception | None = None

    def resolve(self, name: str, file: str) -> Cloud:
        """Return the cloud."""
        self.asked.append((name, file))
        if self.failure:
            raise self.failure
        return CLOUD


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def attributes(**changes: str | None) -> dict[str, str]:
    """Return the attributes of a valid mount; None as a value removes a key."""
    valid: dict[str, str | None] = {
        "csi.storage.k8s.io/pod.name": "web-0",
        "csi.storage.k8s.io/pod.namespace": "shop",
        "keyvaultName": "kv-shop",
        "tenantID": "tenant",
        "objects": objects_text({"objectName": "db", "objectType": "secret"}),
    }
    return {key: value for key, value in (valid | changes).items() if value is not None}


def objects_text(*objects: Mapping[str, str | int]) -> str:
    """Return the text of `objects`; JSON is YAML."""
    return json.dumps({"array": [json.dumps(dict(item)) for item in objects]})

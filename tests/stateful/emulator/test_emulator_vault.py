"""A vault of the emulator against a model of plain lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from provider.emulator.errors import ServiceError
from provider.emulator.vault import Draft, Vault

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES: Final = st.sampled_from(["a", "A", "b", "c-1"])
NOT_FOUND: Final = (404, "SecretNotFound", None)
DISABLED: Final = (403, "Forbidden", "SecretDisabled")
IN_THE_WAY: Final = (409, "Conflict", "ObjectIsDeletedButRecoverable")


@attrs.define
class ModelSecret:
    """What the model knows of a secret: values and states by version, oldest first."""

    versions: list[tuple[str, str]] = attrs.Factory(list)  # id, value
    enabled: dict[str, bool] = attrs.Factory(dict)
    deleted: bool = False


def outcome(call: Callable[[], object]) -> object:
    """Return what a call returns, or status and codes of its refusal."""
    try:
        return call()
    except ServiceError as error:
        return (error.status, error.code, error.inner)


class VaultMachine(RuleBasedStateMachine):
    """Runs the operations of the secrets API in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0
        self.expected_changes = 0
        self.vault = Vault(lambda: 1_000.0, self._note)
        self.model: dict[str, ModelSecret] = {}

    def _note(self) -> None:
        self.changes += 1

    def live(self, name: str) -> ModelSecret | None:
        """Return the model's secret that is not deleted."""
        secret = self.model.get(name.lower())
        return None if secret is None or secret.deleted else secret

    def gone(self, name: str) -> ModelSecret | None:
        """Return the model's deleted secret."""
        secret = self.model.get(name.lower())
        return secret if secret is not None and secret.deleted else None

    @rule(name=NAMES, value=st.text(max_size=5), enabled=st.booleans())
    def set_secret(self, name: str, value: str, *, enabled: bool) -> None:
        """A set adds a version, or is refused while the name is a deleted secret's."""
        draft = Draft(value=value, enabled=enabled)
        made = outcome(lambda: self.vault.set(name, draft)[1].id)
        if self.gone(name):
            assert made == IN_THE_WAY
            return
        secret = self.model.setdefault(name.lower(), ModelSecret())
        secret.versions.append((str(made), value))
        secret.enabled[str(made)] = enabled
        self.expected_changes += 1

    @rule(name=NAMES, back=st.integers(0, 3), enabled=st.booleans())
    def update(self, name: str, back: int, *, enabled: bool) -> None:
        """An update changes one version's state and no value."""
        secret = self.live(name)
        ids = [version for version, _ in secret.versions] if secret else []
        wanted = ids[-1 - back] if back < len(ids) else "0" * 32
        draft = Draft(enabled=enabled, value="never used")
        done = outcome(lambda: self.vault.update(name, wanted, draft)[1].enabled)
        if secret is None or wanted not in ids:
            assert done == NOT_FOUND
            return
        assert done is enabled
        secret.enabled[wanted] = enabled
        self.expected_changes += 1

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        """A delete hides a secret that is there."""
        secret = self.live(name)
        done = outcome(lambda: self.vault.delete(name))
        if secret is None:
            assert done == NOT_FOUND
            return
        secret.deleted = True
        self.expected_changes += 1

    @rule(name=NAMES, purge=st.booleans())
    def recover_or_purge(self, name: str, *, purge: bool) -> None:
        """A deleted secret comes back as it was, or goes for good."""
        secret = self.gone(name)
        act = self.vault.purge if purge else self.vault.recover
        done = outcome(lambda: act(name))
        if secret is None:
            assert done == NOT_FOUND
            return
        if purge:
            del self.model[name.lower()]
        secret.deleted = False
        self.expected_changes += 1

    @rule()
    def move(self) -> None:
        """A dump that is loaded elsewhere is the same vault."""
        dumped = self.vault.dump()
        self.vault = Vault(lambda: 1_000.0, self._note)
        self.vault.load(dumped)
        self.expected_changes += 1

    def read(self, name: str, version: str | None) -> object:
        """Return the value that a read gives, or its refusal."""
        return outcome(lambda: self.vault.read(name, version)[1].value)

    @invariant()
    def reads_agree(self) -> None:
        """Latest and every version read as the model says."""
        for name in ("a", "b", "c-1"):
            secret = self.live(name)
            if secret is None:
                assert self.read(name, None) == NOT_FOUND
                continue
            wanted = [
                value if secret.enabled[version] else DISABLED for version, value in secret.versions
            ]
            assert [self.read(name, version) for version, _ in secret.versions] == wanted
            assert self.read(name, None) == wanted[-1]

    @invariant()
    def lists_agree(self) -> None:
        """The two lists of names part the model's secrets."""
        for deleted in (False, True):
            listed = [secret.name.lower() for secret in self.vault.names(deleted=deleted)]
            wanted = [name for name, secret in self.model.items() if secret.deleted is deleted]
            assert listed == sorted(wanted)

    @invariant()
    def changes_are_told(self) -> None:
        """Each change was told once, and a refusal is none."""
        assert self.changes == self.expected_changes


TestVault = VaultMachine.TestCase

"""Properties of reading a mount: many readers have the outcome of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from fakes.keyvault import FakeVaults
from provider.budget import Budget
from provider.errors import PermissionDenied, ProviderError
from provider.objects import VaultObject
from provider.reads import SecretRef, read_all

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet


@given(st.integers(0, 20), st.sets(st.integers(0, 19)), st.integers(1, 8))
def test_many_readers_agree_with_one(count: int, failing: AbstractSet[int], readers: int) -> None:
    """The result, or the error, does not depend on how many read at once."""
    names = [f"s{number}" for number in range(count)]
    vaults = FakeVaults(values={name: name for name in names})

    def fail(ref: SecretRef) -> None:
        if int(ref.name[1:]) in failing:
            raise PermissionDenied(ref.name)

    vaults.before_read = fail
    wanted = {
        SecretRef(name=name, version=""): VaultObject(name=name, type="secret") for name in names
    }
    expected = next((names[number] for number in sorted(failing) if number < count), None)
    outcome: str | None = None
    try:
        bundles = read_all(wanted, vaults, Budget(30), readers=readers)
    except ProviderError as error:
        outcome = error.message.rpartition(" ")[2]
    else:
        assert set(bundles) == set(wanted)
    assert outcome == expected
    begun = [int(ref.name[1:]) for ref in vaults.reads]
    assert len(begun) == len(set(begun))
    assert begun[:1] == ([0] if count else [])

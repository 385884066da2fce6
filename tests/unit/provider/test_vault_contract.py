"""What every implementation of `Vaults` must do: the fake of other tests, and the SDK's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from fakes.azurepeer import Answer, azure_peer
from fakes.keyvault import CLOUD, FakeVaults
from provider.budget import Budget
from provider.errors import Cancelled, DeadlineExceeded, NotFound
from provider.model import SecretBytes, ServicePrincipal, Vault
from provider.reads import SecretRef

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from provider.reads import SecretReader, VaultAccess, Vaults

DB = SecretRef(name="db", version="")


@attrs.frozen
class Subject:
    """An implementation, with a vault in which the secret `db` has the value `db`."""

    vaults: Vaults
    vault: Vault
    identity: ServicePrincipal

    def access(self) -> VaultAccess:
        """Return access to the vault."""
        return self.vaults.access(self.vault, self.identity)

    def reader(self) -> SecretReader:
        """Return a reader."""
        return self.access().reader()


@pytest.fixture(params=["fake", "sdk"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """Return each implementation."""
    if request.param == "fake":
        identity = ServicePrincipal(
            tenant_id="t", client_id="c", client_secret=SecretBytes("secret")
        )
        vault = Vault(name="kv", cloud=CLOUD)
        yield Subject(FakeVaults(values={"db": "db"}), vault, identity)
        return
    with azure_peer(tmp_path) as peer:
        peer.script = lambda r: (
            Answer(404, {"error": {"code": "SecretNotFound", "message": "no such secret"}})
            if "/missing/" in r.path and r.authorization
            else None
        )
        yield Subject(peer.vaults(), peer.vault(), peer.identity())


def test_a_secret_has_value_and_versioned_id(subject: Subject) -> None:
    """The id ends in the version that was read."""
    bundle = subject.reader().read(DB, Budget(10))
    assert bundle.value == SecretBytes("db")
    assert bundle.object_id is not None
    assert bundle.object_id.rpartition("/secrets/db/")[2]
    assert (bundle.key_id, bundle.content_type) == (None, None)


def test_a_missing_secret_is_not_found(subject: Subject) -> None:
    """The error is ours, and the reader goes on working."""
    reader = subject.reader()
    with pytest.raises(NotFound, match="SecretNotFound"):
        reader.read(SecretRef(name="missing", version=""), Budget(10))
    assert reader.read(DB, Budget(10)).value == SecretBytes("db")


def test_readers_of_one_access_are_independent(subject: Subject) -> None:
    """Each thread has its own; both see the same vault."""
    access = subject.access()
    values = [access.reader().read(DB, Budget(10)).value for _ in range(2)]
    assert values == [SecretBytes("db")] * 2


def test_access_asks_nothing_of_the_vault(subject: Subject) -> None:
    """An identity is proved by the first read, so an empty mount costs nothing."""
    subject.access()
    with pytest.raises(DeadlineExceeded):
        subject.reader().read(DB, Budget(0))


def test_a_cancelled_budget_reads_nothing(subject: Subject) -> None:
    """Nobody waits, nothing is read."""
    budget = Budget(10)
    budget.cancel()
    with pytest.raises(Cancelled):
        subject.reader().read(DB, budget)

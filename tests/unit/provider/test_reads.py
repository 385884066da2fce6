"""Reading the objects of one mount."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from fakes.keyvault import FakeVaults
from provider.budget import Budget
from provider.errors import Cancelled, DeadlineExceeded, NotFound, PermissionDenied
from provider.objects import VaultObject
from provider.reads import SecretRef, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 10.0


def wanted(*names: str) -> dict[SecretRef, VaultObject]:
    """Return references to secrets, with the objects that ask for them."""
    return {
        SecretRef(name=name, version=""): VaultObject(name=name, type="secret") for name in names
    }


def vaults_with(*names: str) -> FakeVaults:
    """Return a vault in which each of these secrets has its name as value."""
    return FakeVaults(values={name: name for name in names})


class Gate:
    """Holds readers of some secrets until it is opened."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.arrived = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, ref: SecretRef) -> None:
        """Hold a reader."""
        if ref.name in self.names:
            self.arrived.release()
            assert self.opened.wait(WAIT_S)


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """Wait for the readers of the test, which nobody else waits for."""
    yield
    for thread in threading.enumerate():
        if thread.name == "akvfs-read":
            thread.join(WAIT_S)
            assert not thread.is_alive()


pytestmark = pytest.mark.usefixtures("no_thread_left")


def test_every_secret_is_read_once() -> None:
    """Each reference leads to one request and one bundle."""
    names = [f"s{i}" for i in range(10)]
    vaults = vaults_with(*names)
    bundles = read_all(wanted(*names), vaults, Budget(WAIT_S))
    assert {ref.name: bundle.value.reveal() for ref, bundle in bundles.items() if bundle.value} == {
        name: name.encode() for name in names
    }
    assert sorted(ref.name for ref in vaults.reads) == sorted(names)


def test_nothing_wanted_opens_no_reader() -> None:
    """An empty mount costs no thread."""
    vaults = FakeVaults()
    assert read_all({}, vaults, Budget(WAIT_S)) == {}
    assert vaults.readers == 0


def test_the_first_secret_is_read_alone() -> None:
    """Nothing else is begun before the identity is proved."""
    vaults = vaults_with("a", "b", "c")
    alone: list[int] = []

    def note(ref: SecretRef) -> None:
        if ref.name == "a":
            alone.append(len(vaults.reads))

    vaults.before_read = note
    read_all(wanted("a", "b", "c"), vaults, Budget(WAIT_S))
    assert alone == [1]
    assert vaults.reads[0].name == "a"


def test_a_refused_identity_costs_one_request() -> None:
    """When the first read fails there is no second."""
    vaults = vaults_with("b", "c")
    with pytest.raises(NotFound, match="failed to get objectType:secret, objectName:a"):
        read_all(wanted("a", "b", "c"), vaults, Budget(WAIT_S))
    assert [ref.name for ref in vaults.reads] == ["a"]


def test_secrets_are_read_at_the_same_time() -> None:
    """After the first, as many are at work as there are readers, and no more."""
    names = ["a", *(f"s{i}" for i in range(8))]
    gate = Gate(*names[1:])
    vaults = vaults_with(*names)
    vaults.before_read = gate
    outcome: list[int] = []
    caller = threading.Thread(
        target=lambda: outcome.append(
            len(read_all(wanted(*names), vaults, Budget(WAIT_S), readers=3))
        )
    )
    caller.start()
    for _ in range(3):
        assert gate.arrived.acquire(timeout=WAIT_S)
    assert not gate.arrived.acquire(blocking=False)
    gate.opened.set()
    caller.join(WAIT_S)
    assert outcome == [9]
    assert vaults.readers <= 3


def test_the_first_failure_in_order_is_raised() -> None:
    """An earlier object that fails later still decides which error is told."""
    gate = Gate("early")
    vaults = vaults_with("a")

    def fail(ref: SecretRef) -> None:
        gate(ref)
        if ref.name == "late":
            gate.opened.set()
            message = "late failed first"
            raise PermissionDenied(message)

    vaults.before_read = fail
    with pytest.raises(NotFound, match="objectName:early"):
        read_all(wanted("a", "early", "late"), vaults, Budget(WAIT_S), readers=4)


def test_nothing_is_begun_after_a_failure() -> None:
    """A mount that fails already does not go on asking."""
    names = [f"s{i}" for i in range(50)]
    vaults = vaults_with("a", *names)
    with pytest.raises(NotFound):
        read_all(wanted("a", "missing", *names), vaults, Budget(WAIT_S), readers=2)
    assert len(vaults.reads) < 50


@pytest.mark.parametrize("slow", ["a", "b"])
def test_a_slow_vault_does_not_outlast_the_budget(slow: str) -> None:
    """The caller gets its answer in time, with the object that was waited for."""
    gate = Gate(slow)
    vaults = vaults_with("a", "b")
    vaults.before_read = gate
    with pytest.raises(DeadlineExceeded, match=f"objectName:{slow}, .*context deadline exceeded"):
        read_all(wanted("a", "b"), vaults, Budget(0.05))
    gate.opened.set()


def test_a_caller_that_hangs_up_is_not_served() -> None:
    """Cancelling ends the wait at once."""
    gate = Gate("a")
    vaults = vaults_with("a")
    vaults.before_read = gate
    budget = Budget(60.0)

    def hang_up() -> None:
        gate.arrived.acquire(timeout=WAIT_S)
        budget.cancel()

    canceller = threading.Thread(target=hang_up)
    canceller.start()
    with pytest.raises(Cancelled, match="objectName:a"):
        read_all(wanted("a"), vaults, budget)
    canceller.join()
    gate.opened.set()


def test_a_defect_in_a_reader_reaches_the_caller() -> None:
    """An exception that nobody expects is not lost in a thread."""
    vaults = vaults_with("a", "b")

    def fail(ref: SecretRef) -> None:
        if ref.name == "b":
            message = "defect"
            raise KeyError(message)

    vaults.before_read = fail
    with pytest.raises(KeyError, match="defect"):
        read_all(wanted("a", "b"), vaults, Budget(WAIT_S))

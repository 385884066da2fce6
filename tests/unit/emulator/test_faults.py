"""Faults on command, seen from the wire."""

from __future__ import annotations

import http.client
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from fakes.loopback import Wire
from provider.emulator import CommandRefused, FaultKind
from provider.emulator.faults import Fault, FaultPlan
from provider.emulator.requestlog import Trace

if TYPE_CHECKING:
    from provider.emulator import EmulatorClient

VERSION: Final = "api-version=7.4"


@pytest.fixture
def url(emulator: EmulatorClient) -> str:
    """Return the URL of a secret."""
    return f"{emulator.vaults['demo']}secrets/db-password?{VERSION}"


def test_throttle_may_lack_retry_after(
    emulator: EmulatorClient, wire: Wire, url: str, bearer: dict[str, str]
) -> None:
    """A 429 has the service's JSON, and Retry-After only when told."""
    emulator.fault("throttle")
    emulator.fault("throttle", retry_after=7)
    bare, timed = (wire.send("GET", url, headers=bearer) for _ in range(2))
    assert [bare.status, timed.status] == [429, 429]
    assert bare.content["error"]["code"] == "Throttled"
    assert [answer.headers.get("Retry-After") for answer in (bare, timed)] == [None, "7"]
    assert wire.send("GET", url, headers=bearer).status == 200


def test_error_has_the_status_asked_for(
    emulator: EmulatorClient, wire: Wire, url: str, bearer: dict[str, str]
) -> None:
    """`error` is a 500 unless another status is given, until the faults are cleared."""
    emulator.fault(FaultKind.ERROR)
    emulator.fault(FaultKind.ERROR, status=503, count=None)
    statuses = [wire.send("GET", url, headers=bearer).status for _ in range(3)]
    emulator.clear_faults()
    assert [*statuses, wire.send("GET", url, headers=bearer).status] == [500, 503, 503, 200]


def test_reset_breaks_the_connection(
    emulator: EmulatorClient, wire: Wire, url: str, bearer: dict[str, str]
) -> None:
    """`reset` sends no answer but a TCP reset, and is logged with status 0."""
    emulator.fault("reset")
    with pytest.raises(ConnectionResetError):
        wire.send("GET", url, headers=bearer)
    assert [(entry.status, entry.fault) for entry in emulator.request_log("secret-get")] == [
        (0, "reset")
    ]


def test_truncate_ends_within_the_body(
    emulator: EmulatorClient, wire: Wire, url: str, bearer: dict[str, str]
) -> None:
    """`truncate` promises the whole body, sends half of it and closes."""
    emulator.fault("truncate")
    with pytest.raises((http.client.IncompleteRead, OSError)):
        wire.send("GET", url, headers=bearer)


def test_slow_request_holds_nobody_else_up(
    emulator: EmulatorClient, wire: Wire, url: str, bearer: dict[str, str]
) -> None:
    """While one request waits, others are answered; it answers with what holds at its end."""
    emulator.fault("slow", seconds=0.5)
    answers: list[Any] = []
    began = time.monotonic()
    slow = threading.Thread(
        target=lambda: answers.append(wire.send("GET", url, headers=bearer).content["value"])
    )
    slow.start()
    emulator.set_secret("demo", "db-password", "second")
    fast = time.monotonic() - began
    slow.join()
    assert answers == ["second"]
    assert fast < 0.5 <= time.monotonic() - began


def test_faults_can_strike_sign_in(emulator: EmulatorClient, wire: Wire, url: str) -> None:
    """Tokens and challenges suffer when their kind is named, and not before."""
    emulator.fault("error", operation="token")
    emulator.fault("error", operation="challenge")
    emulator.fault("error", operation="discovery")
    discovery = f"{emulator.login_url}/x/v2.0/.well-known/openid-configuration"
    assert wire.send("GET", discovery).status == 500
    assert wire.sign_in("x").status == 500
    assert [wire.send("GET", url).status for _ in range(2)] == [500, 401]


def test_wrong_faults_are_refused(emulator: EmulatorClient) -> None:
    """An unknown vault, an unknown kind or a number out of range is an error, not a no-op."""
    with pytest.raises(CommandRefused, match="vault: there is no nobody"):
        emulator.fault("reset", vault="nobody")
    for wrong in ({"count": 0}, {"seconds": -1.0}, {"retry_after": -1}, {"status": 200}):
        with pytest.raises(CommandRefused, match=f"^{next(iter(wrong))}: "):
            emulator.fault("error", **wrong)
    with pytest.raises(ValueError, match="explode"):
        emulator.fault("explode")


def test_plan_strikes_whom_it_is_meant_for() -> None:
    """Vault, secret and kind all have to match; the first fault that does is used up."""
    plan = FaultPlan()
    plan.add(Fault(kind=FaultKind.RESET, vault="other"))
    plan.add(Fault(kind=FaultKind.SLOW, vault="Demo", name="B", count=2))
    plan.add(Fault(kind=FaultKind.ERROR, operation="secret-list"))
    read = Trace(kind="secret-get", vault="demo", name="b", principal="app")
    assert plan.take(Trace(kind="secret-get", vault="demo", name="a", principal="app")) is None
    assert plan.take(Trace(kind="challenge", vault="demo", name="b")) is None
    struck = [plan.take(read) for _ in range(3)]
    assert [fault and fault.kind for fault in struck] == [FaultKind.SLOW, FaultKind.SLOW, None]
    listing = plan.take(Trace(kind="secret-list", vault="demo", principal="app"))
    assert listing is not None
    assert listing.kind is FaultKind.ERROR


def test_many_connections_are_served_at_once(
    emulator: EmulatorClient, url: str, bearer: dict[str, str]
) -> None:
    """Thirty slow reads on thirty connections take the time of one."""
    emulator.fault("slow", seconds=0.3, count=30)

    def read() -> None:
        with Wire(emulator) as own:
            assert own.send("GET", url, headers=bearer).status == 200

    threads = [threading.Thread(target=read) for _ in range(30)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 5
    assert len(emulator.request_log("secret-get")) == 30

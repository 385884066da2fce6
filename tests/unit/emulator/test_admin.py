"""The admin API and its client."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from provider.emulator import CommandRefused, EmulatorClient, EmulatorUnavailable, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakes.loopback import Connect, Wire
    from provider.emulator import EmulatorConfig

CANARY: Final = "canary-4711"


@pytest.mark.parametrize(
    ("method", "path", "with_token", "status"),
    [
        pytest.param("POST", "/admin/log", False, 401, id="no-token"),
        pytest.param("GET", "/admin/log", True, 405, id="method"),
        pytest.param("POST", "/admin/nothing", True, 404, id="unknown"),
        pytest.param("POST", "/other", True, 404, id="path"),
    ],
)
def test_admin_requests_are_checked(
    emulator: EmulatorClient,
    wire: Wire,
    *,
    method: str,
    path: str,
    with_token: bool,
    status: int,
) -> None:
    """The admin token is needed; unknown commands and methods are refused."""
    token = Path(emulator.index.admin_token_file).read_text("ascii")
    headers = {"Authorization": f"Bearer {token}"} if with_token else {}
    assert wire.send(method, emulator.url + path, body=b"{}", headers=headers).status == status


def test_admin_does_not_answer_on_vault_hosts(emulator: EmulatorClient, wire: Wire) -> None:
    """A vault's host name has no admin API, whoever asks."""
    token = Path(emulator.index.admin_token_file).read_text("ascii")
    url = f"{emulator.vaults['demo']}admin/log"
    headers = {"Authorization": f"Bearer {token}"}
    assert wire.send("POST", url, body=b"{}", headers=headers).status == 404


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda client: client.set_secret("nobody", "a", CANARY), id="vault"),
        pytest.param(lambda client: client.set_secret("demo", "a_b", CANARY), id="name"),
        pytest.param(lambda client: client.set_secret("demo", "a", CANARY * 9999), id="size"),
        pytest.param(lambda client: client.disable("demo", "nothing"), id="missing-secret"),
        pytest.param(lambda client: client.grant("nobody", "demo", ["get"]), id="principal"),
        pytest.param(lambda client: client.grant("app", "demo", ["fly"]), id="permission"),
        pytest.param(lambda client: client.request_log(after="x"), id="type"),
    ],
)
def test_wrong_commands_change_nothing(
    emulator: EmulatorClient, call: Callable[[EmulatorClient], object]
) -> None:
    """A command that cannot be done is refused with a reason that holds no value."""
    before = emulator.export_state()
    with pytest.raises(CommandRefused) as caught:
        call(emulator)
    assert CANARY not in str(caught.value)
    assert emulator.export_state() == before


def test_secret_states_change_by_command(emulator: EmulatorClient, connect: Connect) -> None:
    """Set, disable, enable, delete and recover act on what the SDK sees next."""
    client = connect()
    version = emulator.set_secret(
        "demo", "fresh", "v", content_type="text/plain", tags={"a": "b"}, created=1_000
    )
    shown = client.get_secret("fresh").properties
    assert (shown.version, shown.content_type, shown.tags) == (version, "text/plain", {"a": "b"})
    assert shown.created_on is not None
    assert shown.created_on.timestamp() == 1_000
    for command, status in (
        (emulator.disable, 403),
        (emulator.enable, 200),
        (emulator.delete, 404),
        (emulator.recover, 200),
    ):
        command("demo", "fresh")
        assert _status_of_read(connect, emulator) == status


def _status_of_read(connect: Connect, emulator: EmulatorClient) -> int:
    try:
        connect().get_secret("fresh")
    except Exception:  # noqa: BLE001 - the log has the status
        return emulator.request_log()[-1].status
    return emulator.request_log()[-1].status


def test_log_can_be_read_in_parts(emulator: EmulatorClient, connect: Connect) -> None:
    """Entries are read by kind and from a number on; a reset forgets them, not the numbers."""
    client = connect()
    client.get_secret("db-password")
    last = emulator.request_log()[-1].number
    client.get_secret("expired")
    assert [entry.name for entry in emulator.request_log("secret-get")] == [
        "db-password",
        "expired",
    ]
    assert [entry.name for entry in emulator.request_log(after=last)] == ["expired"]
    emulator.reset_log()
    assert emulator.request_log() == []
    client.get_secret("expired")
    assert emulator.request_log()[0].number > last


def test_state_moves_to_a_successor(config: EmulatorConfig, emulator: EmulatorClient) -> None:
    """An export holds versions, states and access; a successor that gets it goes on from there."""
    version = emulator.set_secret("demo", "fresh", CANARY, expires=5, tags={"a": "b"})
    emulator.delete("second", "db-password")
    emulator.grant("stranger", "demo", ["get"])
    state = emulator.export_state()
    assert state is not None
    assert CANARY not in repr(state)
    with running(config) as successor:
        successor.restore_state(state)
        restored = successor.export_state()
    assert restored is not None
    assert restored.vaults == state.vaults
    kept = {secret.name: secret for secret in restored.vaults["demo"].secrets}["fresh"].latest
    assert (kept.id, kept.value, kept.expires) == (version, CANARY, 5)


def test_export_waits_for_a_change(emulator: EmulatorClient) -> None:
    """An export beyond a revision returns at the next change, or nothing in the end."""
    state = emulator.export_state()
    assert state is not None
    assert emulator.export_state(beyond=state.revision) is None
    later: list[Any] = []
    waiter = threading.Thread(
        target=lambda: later.append(emulator.export_state(beyond=state.revision, wait_seconds=20.0))
    )
    waiter.start()
    emulator.set_secret("demo", "fresh", "v")
    waiter.join()
    assert later[0].revision > state.revision


def test_restore_of_an_unknown_vault_is_refused(emulator: EmulatorClient) -> None:
    """A state with a vault that the configuration lacks changes nothing."""
    config_of_another = {"vaults": {"nobody": {"secrets": [], "access": {}}}, "revision": 1}
    with pytest.raises(CommandRefused, match="vault: there is no nobody"):
        emulator.restore_state(config_of_another)  # type: ignore[arg-type] # what JSON may hold


def test_client_says_when_nobody_answers(config: EmulatorConfig, tmp_path: Path) -> None:
    """Without an emulator, or after its end, every call names the place and the remedy."""
    client = EmulatorClient.from_dir(tmp_path)
    with pytest.raises(EmulatorUnavailable, match="is the emulator running"):
        client.request_log()
    with running(config, tmp_path):
        text = (tmp_path / "emulator.json").read_bytes()
        ca, token = ((tmp_path / name).read_bytes() for name in ("ca.pem", "admin-token"))
    for name, content in (("emulator.json", text), ("ca.pem", ca), ("admin-token", token)):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EmulatorUnavailable, match="does not answer"):
        client.request_log()

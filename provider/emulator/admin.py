"""The admin API: `POST /admin/<command>` by IP address, with the admin token and a JSON body.

It is not part of what is emulated. It changes vaults past the access policies, plans faults,
reads the request log, and moves the whole state out and in. `EmulatorClient` is its client.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import msgspec

from provider.emulator.errors import CommandRefused, ServiceError
from provider.emulator.faults import Fault
from provider.emulator.messages import Reply, Request
from provider.emulator.state import StateExport
from provider.emulator.vault import Draft

if TYPE_CHECKING:
    from collections.abc import Callable

    from provider.emulator.state import EmulatorState

LONGEST_WAIT_S = 300.0
PREFIX = "/admin/"


class _Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the commands' bodies."""


class _OfSecret(_Command, frozen=True):
    vault: str
    name: str


class _SetSecret(_OfSecret, frozen=True):
    draft: Draft


class _Grant(_Command, frozen=True):
    principal: str
    vault: str
    permissions: list[str]


class _Revoke(_Command, frozen=True):
    principal: str
    vault: str
    permissions: list[str] | None = None


class _ReadLog(_Command, frozen=True):
    kind: str | None = None
    after: int = 0


class _Export(_Command, frozen=True):
    beyond: int | None = None
    wait_seconds: float = 0.0


class _Nothing(_Command, frozen=True):
    """A command without arguments."""


def authorized(request: Request, token: str) -> bool:
    """Tell whether a request carries the admin token."""
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


async def respond(state: EmulatorState, request: Request) -> Reply:
    """Run the command of an authorized request."""
    command = request.path.removeprefix(PREFIX)
    try:
        if command == "export":
            return await _export(state, _body(request, _Export))
        if command not in _COMMANDS:
            return _refusal(404, f"command: there is no {command}")
        form, run = _COMMANDS[command]
        return Reply.json(200, run(state, _body(request, form)))
    except ServiceError as error:
        return _refusal(error.status, error.message)
    except CommandRefused as error:
        return _refusal(400, str(error))


def _body(request: Request, form: Any) -> Any:  # noqa: ANN401 - msgspec checks it at run time
    try:
        return msgspec.json.decode(request.body or b"{}", type=form)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"arguments: {error}"
        raise CommandRefused(message) from None


def _refusal(status: int, message: str) -> Reply:
    return Reply.json(status, {"error": message})


async def _export(state: EmulatorState, command: _Export) -> Reply:
    if command.beyond is not None:
        seconds = min(command.wait_seconds, LONGEST_WAIT_S)
        if not await state.wait_beyond(command.beyond, seconds):
            return Reply.json(200, None)
    return Reply.json(200, state.export())


def _set_secret(state: EmulatorState, command: _SetSecret) -> object:
    return state.vault(command.vault).vault.set(command.name, command.draft)[1].id


def _enable(state: EmulatorState, command: _OfSecret) -> object:
    state.vault(command.vault).vault.update(command.name, None, Draft(enabled=True))
    return None


def _disable(state: EmulatorState, command: _OfSecret) -> object:
    state.vault(command.vault).vault.update(command.name, None, Draft(enabled=False))
    return None


def _delete(state: EmulatorState, command: _OfSecret) -> object:
    state.vault(command.vault).vault.delete(command.name)
    return None


def _recover(state: EmulatorState, command: _OfSecret) -> object:
    state.vault(command.vault).vault.recover(command.name)
    return None


def _grant(state: EmulatorState, command: _Grant) -> object:
    state.grant(command.vault, command.principal, command.permissions)
    return None


def _revoke(state: EmulatorState, command: _Revoke) -> object:
    state.revoke(command.vault, command.principal, command.permissions)
    return None


def _fault(state: EmulatorState, fault: Fault) -> object:
    if fault.vault is not None:
        state.vault(fault.vault)
    problem = fault.problem()
    if problem is not None:
        raise CommandRefused(problem)
    state.faults.add(fault)
    return None


def _clear_faults(state: EmulatorState, _: _Nothing) -> object:
    state.faults.clear()
    return None


def _log(state: EmulatorState, command: _ReadLog) -> object:
    return state.log.entries(command.kind, command.after)


def _reset_log(state: EmulatorState, _: _Nothing) -> object:
    state.log.reset()
    return None


def _restore(state: EmulatorState, exported: StateExport) -> object:
    state.restore(exported)
    return None


_COMMANDS: dict[str, tuple[Any, Callable[[EmulatorState, Any], object]]] = {
    "set-secret": (_SetSecret, _set_secret),
    "enable": (_OfSecret, _enable),
    "disable": (_OfSecret, _disable),
    "delete": (_OfSecret, _delete),
    "recover": (_OfSecret, _recover),
    "grant": (_Grant, _grant),
    "revoke": (_Revoke, _revoke),
    "fault": (Fault, _fault),
    "clear-faults": (_Nothing, _clear_faults),
    "log": (_ReadLog, _log),
    "reset-log": (_Nothing, _reset_log),
    "restore": (StateExport, _restore),
}

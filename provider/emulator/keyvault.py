"""Key Vault's secrets API of one vault: routes, authentication, permissions, operations.

The order of the checks: route and method, token, faults, api-version, permission, then the
operation with its own limits.

Not established of the service, and chosen here: the JSON of 404 and 405 for routes that do not
exist, that the versions of a missing secret are 404, that a fault comes after authentication.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING
from urllib.parse import unquote

import attrs

from provider.emulator.directory import TokenRejected
from provider.emulator.errors import ServiceError
from provider.emulator.messages import Reply, Request
from provider.emulator.shapes import deleted, page, properties, read_draft
from provider.emulator.vault import bad_parameter

if TYPE_CHECKING:
    from collections.abc import Callable

    from provider.emulator.directory import Principal
    from provider.emulator.requestlog import Trace
    from provider.emulator.state import EmulatorState, HostedVault

API_VERSIONS = (
    "2015-06-01", "2016-10-01", "7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6",
    "2025-07-01", "2026-04-01",
)  # fmt: skip
POLICY_LINK = "https://go.microsoft.com/fwlink/?linkid=2125287"


@attrs.frozen(kw_only=True)
class Call:
    """One routed request to one vault."""

    state: EmulatorState
    hosted: HostedVault
    request: Request
    name: str = ""
    version: str | None = None

    @property
    def base(self) -> str:
        """The vault's URL, without a slash at the end."""
        return f"https://{self.state.host_name(self.hosted)}:{self.state.port}"


@attrs.frozen(kw_only=True)
class Operation:
    """What a method does at a route."""

    kind: str  # of the request log
    permission: str  # of the access policy
    run: Callable[[Call], Reply]


def route(call: Call, trace: Trace) -> tuple[Call, Operation]:
    """Find the operation, and put name and version into the call and the trace.

    Raises:
        ServiceError: 404 for an unknown path, 405 for a method that the path does not have.
    """
    path = call.request.path
    for pattern, methods in _ROUTES:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        parts = {key: unquote(text) for key, text in match.groupdict().items()}
        trace.name, trace.version = parts.get("name"), parts.get("version")
        operation = methods.get(call.request.method)
        if operation is None:
            allow = ", ".join(sorted(methods))
            message = f"The method {call.request.method} is not allowed here; allowed: {allow}."
            raise ServiceError(405, "MethodNotAllowed", message, headers=(("Allow", allow),))
        trace.kind = operation.kind
        call = attrs.evolve(call, name=trace.name or "", version=trace.version)
        return call, operation
    raise ServiceError(404, "NotFound", "The request URI does not name a resource of the vault.")


def authenticate(call: Call, trace: Trace) -> Principal | ServiceError:
    """Return who sent a request, or the 401 with the challenge."""
    scheme, _, token = call.request.headers.get("authorization", "").partition(" ")
    authority = f"{call.state.login_url}/{call.hosted.tenant}"
    challenge = f'Bearer authorization="{authority}", resource="{call.state.resource}"'
    if scheme.lower() != "bearer" or not token.strip():
        trace.kind = "challenge"
        message = "AKV10000: Request is missing a Bearer or PoP token."
        return _unauthorized(message, challenge)
    try:
        principal = call.state.directory.verify(
            token.strip(), audience=call.state.resource, tenant=call.hosted.tenant
        )
    except TokenRejected as rejected:
        return _unauthorized(str(rejected), f'{challenge}, error="invalid_token"')
    trace.principal = principal.name
    return principal


def execute(call: Call, operation: Operation, principal: Principal | ServiceError) -> Reply:
    """Run an operation for what `authenticate` returned.

    Raises:
        ServiceError: Everything that is not a success.
    """
    if isinstance(principal, ServiceError):
        raise principal
    _check_api_version(call.request.query.get("api-version"))
    if operation.permission not in call.hosted.access.get(principal.name, ()):
        raise _access_denied(call, operation, principal)
    return operation.run(call)


def service_headers(request: Request) -> tuple[tuple[str, str], ...]:
    """Return the headers that the service puts on every answer."""
    client_id = request.headers.get("x-ms-client-request-id")
    return (
        ("Cache-Control", "no-cache"),
        ("Pragma", "no-cache"),
        ("Expires", "-1"),
        ("x-ms-keyvault-region", "emulator"),
        *((("x-ms-client-request-id", client_id),) if client_id else ()),
        ("x-ms-request-id", str(uuid.uuid4())),
        ("x-ms-keyvault-service-version", "1.9.0.0"),
        ("x-ms-keyvault-network-info", "conn_type=Ipv4;addr=127.0.0.1;act_addr_fam=InterNetwork;"),
        ("X-Content-Type-Options", "nosniff"),
        ("Strict-Transport-Security", "max-age=31536000;includeSubDomains"),
    )


def _get_secret(call: Call) -> Reply:
    secret, version = call.hosted.vault.read(call.name, call.version)
    return Reply.json(200, {"value": version.value, **properties(call.base, secret, version)})


def _set_secret(call: Call) -> Reply:
    draft = read_draft(call.request)
    secret, version = call.hosted.vault.set(call.name, draft)
    return Reply.json(200, {"value": version.value, **properties(call.base, secret, version)})


def _update_secret(call: Call) -> Reply:
    draft = attrs.evolve(read_draft(call.request), value=None)
    secret, version = call.hosted.vault.update(call.name, call.version, draft)
    return Reply.json(200, properties(call.base, secret, version))


def _delete_secret(call: Call) -> Reply:
    return Reply.json(200, deleted(call.base, call.hosted.vault.delete(call.name)))


def _get_deleted(call: Call) -> Reply:
    return Reply.json(200, deleted(call.base, call.hosted.vault.find_deleted(call.name)))


def _recover_secret(call: Call) -> Reply:
    secret = call.hosted.vault.recover(call.name)
    return Reply.json(200, properties(call.base, secret, secret.latest))


def _purge_secret(call: Call) -> Reply:
    call.hosted.vault.purge(call.name)
    return Reply(status=204)


def _list_secrets(call: Call) -> Reply:
    items = [
        (secret.name.lower(), properties(call.base, secret)) for secret in call.hosted.vault.names()
    ]
    return page(call.request, call.base, items)


def _list_deleted(call: Call) -> Reply:
    secrets = call.hosted.vault.names(deleted=True)
    return page(
        call.request,
        call.base,
        [(secret.name.lower(), deleted(call.base, secret)) for secret in secrets],
    )


def _list_versions(call: Call) -> Reply:
    secret = call.hosted.vault.find(call.name)
    # By id, which is random: the service's order says nothing about age.
    versions = sorted(secret.versions, key=lambda version: version.id)
    return page(
        call.request,
        call.base,
        [(version.id, properties(call.base, secret, version)) for version in versions],
    )


def _check_api_version(version: str | None) -> None:
    if not version:
        message = "api-version must be specified"
        raise bad_parameter(message)
    if version not in API_VERSIONS:
        message = (
            f"The specified version ({version}) is not recognized. Consider using the latest"
            f" supported version ({API_VERSIONS[-1]})."
        )
        raise bad_parameter(message)


def _access_denied(call: Call, operation: Operation, principal: Principal) -> ServiceError:
    issuer = call.state.directory.issuer(principal.tenant)
    message = (
        f"The user, group or application 'appid={principal.client_id};oid={principal.object_id};"
        f"iss={issuer}' does not have secrets {operation.permission} permission on key vault"
        f" '{call.hosted.name};location=emulator'. For help resolving this issue, please see"
        f" {POLICY_LINK}"
    )
    return ServiceError(403, "Forbidden", message, inner="AccessDenied")


def _unauthorized(message: str, challenge: str) -> ServiceError:
    return ServiceError(401, "Unauthorized", message, headers=(("WWW-Authenticate", challenge),))


def _operation(kind: str, permission: str, run: Callable[[Call], Reply]) -> Operation:
    return Operation(kind=kind, permission=permission, run=run)


_NAME, _VERSION = r"(?P<name>[^/]+)", r"(?P<version>[^/]+)"
_UPDATE = _operation("secret-update", "set", _update_secret)
_GET = _operation("secret-get", "get", _get_secret)
_ROUTES: tuple[tuple[re.Pattern[str], dict[str, Operation]], ...] = (
    (re.compile(r"/secrets/?"), {"GET": _operation("secret-list", "list", _list_secrets)}),
    (
        # The SDK asks for the latest version with a slash at the end.
        re.compile(rf"/secrets/{_NAME}/?"),
        {
            "GET": _GET,
            "PUT": _operation("secret-set", "set", _set_secret),
            "PATCH": _UPDATE,
            "DELETE": _operation("secret-delete", "delete", _delete_secret),
        },
    ),
    (
        re.compile(rf"/secrets/{_NAME}/versions/?"),
        {"GET": _operation("version-list", "list", _list_versions)},
    ),
    (re.compile(rf"/secrets/{_NAME}/{_VERSION}/?"), {"GET": _GET, "PATCH": _UPDATE}),
    (re.compile(r"/deletedsecrets/?"), {"GET": _operation("deleted-list", "list", _list_deleted)}),
    (
        re.compile(rf"/deletedsecrets/{_NAME}/?"),
        {
            "GET": _operation("deleted-get", "get", _get_deleted),
            "DELETE": _operation("secret-purge", "purge", _purge_secret),
        },
    ),
    (
        re.compile(rf"/deletedsecrets/{_NAME}/recover/?"),
        {"POST": _operation("secret-recover", "recover", _recover_secret)},
    ),
)

"""Entra ID's endpoints: OIDC discovery, instance discovery and the v2.0 token endpoint.

Client credentials with a client secret only. Errors have Entra ID's codes and form; texts are its
texts as far as they matter to a reader (AADSTS number, application, tenant, resource).
"""

from __future__ import annotations

import hmac
import re
import time
import uuid
from typing import TYPE_CHECKING

from provider.emulator.messages import Reply, Request

if TYPE_CHECKING:
    from provider.emulator.directory import Principal
    from provider.emulator.requestlog import Trace
    from provider.emulator.state import EmulatorState

_DISCOVERY = re.compile(r"/([^/]+)/v2\.0/\.well-known/openid-configuration")
_TOKEN = re.compile(r"/([^/]+)/oauth2/v2\.0/token")
_INSTANCE = re.compile(r"/common/discovery/instance")
_NO_STORE = (("Cache-Control", "no-store, no-cache"), ("Pragma", "no-cache"))


class SignInFailed(Exception):
    """A token request that Entra ID refuses.

    Args:
        status: HTTP status.
        error: OAuth's error name.
        number: The AADSTS number.
        description: What stands behind the number.
    """

    def __init__(self, status: int, error: str, number: int, description: str) -> None:
        super().__init__(f"AADSTS{number}: {description}")
        self.status = status
        self.error = error
        self.number = number


def kind_of(request: Request) -> str:
    """Return the request log's kind of a request to the login host."""
    if _TOKEN.fullmatch(request.path):
        return "token"
    if _DISCOVERY.fullmatch(request.path) or _INSTANCE.fullmatch(request.path):
        return "discovery"
    return "unknown"


def respond(state: EmulatorState, request: Request, trace: Trace) -> Reply:
    """Answer a request to the login host."""
    routes = ((_TOKEN, "POST"), (_DISCOVERY, "GET"), (_INSTANCE, "GET"))
    for pattern, method in routes:
        match = pattern.fullmatch(request.path)
        if match is None:
            continue
        if request.method != method:
            return _refuse(SignInFailed(405, "invalid_request", 900561, f"Use {method}."))
        try:
            if pattern is _TOKEN:
                return _token(state, match[1].lower(), request, trace)
            if pattern is _DISCOVERY:
                return _discovery(state, match[1].lower())
            return _instance(state)
        except SignInFailed as failure:
            return _refuse(failure)
    return _refuse(SignInFailed(404, "invalid_request", 90019, "No such endpoint."))


def _discovery(state: EmulatorState, tenant: str) -> Reply:
    _check_tenant(state, tenant)
    base = f"{state.login_url}/{tenant}"
    return Reply.json(
        200,
        {
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "jwks_uri": f"{base}/discovery/v2.0/keys",
            "response_types_supported": ["token"],
            "scopes_supported": ["openid"],
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "tenant_region_scope": None,
            "cloud_instance_name": state.login_host,
        },
    )


def _instance(state: EmulatorState) -> Reply:
    authority = f"{state.login_host}:{state.port}"
    aliases = {"preferred_network": authority, "preferred_cache": authority, "aliases": [authority]}
    endpoint = f"{state.login_url}/common/v2.0/.well-known/openid-configuration"
    content = {
        "tenant_discovery_endpoint": endpoint,
        "api-version": "1.1",
        "metadata": [aliases],
    }
    return Reply.json(200, content)


def _token(state: EmulatorState, tenant: str, request: Request, trace: Trace) -> Reply:
    _check_tenant(state, tenant)
    form = request.form()
    trace.principal = form.get("client_id")
    grant = form.get("grant_type")
    if grant != "client_credentials":
        message = f"The app requested an unsupported grant type '{grant}'."
        raise SignInFailed(400, "unsupported_grant_type", 70003, message)
    principal = _authenticate(state, tenant, form)
    trace.principal = principal.name
    audience = _audience(state, tenant, form)
    lifetime = state.directory.token_lifetime
    content = {
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": state.directory.issue(principal, audience),
    }
    return Reply.json(200, content, _NO_STORE)


def _authenticate(state: EmulatorState, tenant: str, form: dict[str, str]) -> Principal:
    client_id = form.get("client_id")
    if not client_id:
        message = "client_id"
        raise _missing(message)
    principal = state.directory.by_client_id(client_id)
    if principal is None or principal.tenant != tenant:
        message = (
            f"Application with identifier '{client_id}' was not found in the directory '{tenant}'."
            " This can happen if the application has not been installed by the administrator of"
            " the tenant. You may have sent your authentication request to the wrong tenant."
        )
        raise SignInFailed(400, "unauthorized_client", 700016, message)
    secret = form.get("client_secret")
    if not secret:
        message = (
            "The request body must contain the following parameter: 'client_assertion' or"
            " 'client_secret'."
        )
        raise SignInFailed(401, "invalid_client", 7000218, message)
    if not hmac.compare_digest(secret.encode(), principal.client_secret.encode()):
        message = (
            "Invalid client secret provided. Ensure the secret being sent in the request is the"
            " client secret value, not the client secret ID, for a secret added to app"
            f" '{client_id}'."
        )
        raise SignInFailed(401, "invalid_client", 7000215, message)
    return principal


def _audience(state: EmulatorState, tenant: str, form: dict[str, str]) -> str:
    scope = form.get("scope")
    if not scope:
        message = "scope"
        raise _missing(message)
    resource, default, rest = scope.partition("/.default")
    if not default or rest:
        message = (
            f"The provided value for scope {scope} is not valid. Client credential flows must have"
            " a scope value with /.default suffixed to the resource identifier."
        )
        raise SignInFailed(400, "invalid_scope", 1002012, message)
    if resource not in state.audiences:
        message = (
            f"The resource principal named {resource} was not found in the tenant named {tenant}."
        )
        raise SignInFailed(400, "invalid_resource", 500011, message)
    return resource


def _check_tenant(state: EmulatorState, tenant: str) -> None:
    if tenant not in state.directory.tenants:
        message = f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID."
        raise SignInFailed(400, "invalid_request", 90002, message)


def _missing(parameter: str) -> SignInFailed:
    message = f"The request body must contain the following parameter: '{parameter}'."
    return SignInFailed(400, "invalid_request", 900144, message)


def _refuse(failure: SignInFailed) -> Reply:
    trace_id, correlation_id = str(uuid.uuid4()), str(uuid.uuid4())
    timestamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    description = (
        f"{failure} Trace ID: {trace_id} Correlation ID: {correlation_id} Timestamp: {timestamp}"
    )
    content = {
        "error": failure.error,
        "error_description": description,
        "error_codes": [failure.number],
        "timestamp": timestamp,
        "trace_id": trace_id,
        "correlation_id": correlation_id,
    }
    return Reply.json(failure.status, content, _NO_STORE)

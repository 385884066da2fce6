"""The SDK's exceptions turned into ours, most specific class first; none leaves the package.

An SDK exception holds the request that it is about, with its bearer token or with the form that
carries the client secret. So the translation keeps what a reader needs (method, URL, status, the
service's code and a bounded, scrubbed piece of its message, its request id) and nothing else, and
`KeyVaultReader` raises it where the original is no longer in flight.
"""

from __future__ import annotations

import socket
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import attrs
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    DeserializationError,
    HttpResponseError,
    IncompleteReadError,
    SerializationError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)
from urllib3.exceptions import NameResolutionError

from provider.errors import (
    InvalidRequest,
    Malformed,
    NotFound,
    PermissionDenied,
    ProviderError,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from provider.redaction import one_line, scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from provider.azure.transport import Call
    from provider.model import ServicePrincipal, Vault

_CLIENT_ERRORS: Final = 400
_SERVER_ERRORS: Final = 500
_PASSING: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT})
_REDIRECTS: Final = range(300, 400)

_TIMEOUTS: Final = (ServiceRequestTimeoutError, ServiceResponseTimeoutError, TimeoutError)

_CHALLENGE_TEXT: Final = "The challenge "  # how the SDK's two errors about a challenge begin


@attrs.frozen(kw_only=True)
class Context:
    """What a read was about.

    Attributes:
        vault: Where it was sent.
        identity: Who asked; its secret is scrubbed from every text.
        path: What was asked for, below the vault's URL.
        call: The caller's time and the latest exchange.
    """

    vault: Vault
    identity: ServicePrincipal
    path: str
    call: Call

    @property
    def request(self) -> str:
        """Return how errors name the request."""
        return f"GET {self.vault.url}{self.path}"

    def quoted(self, text: str) -> str:
        """Make a service's words fit for a message."""
        return scrub(one_line(text), [self.identity.client_secret])


def translate(error: Exception, context: Context) -> ProviderError:
    """Return our error for anything that an SDK call raised."""
    if isinstance(error, ProviderError):
        return error
    for kind, rule in RULES:
        if isinstance(error, kind):
            return rule(error, context)
    return Malformed(f"{context.request}: {type(error).__name__} in the client library")


def _authentication(error: Exception, context: Context) -> ProviderError:
    """Tell a refused identity from an Entra ID that could not be asked."""
    if own := next((e for e in _chain(error) if isinstance(e, ProviderError)), None):
        return own
    call = context.call
    if call.role != "login":
        return _unproved(error, context)
    host = context.vault.cloud.authority
    if call.status is None:
        return _unreachable(error, context, host)
    if call.status == HTTPStatus.TOO_MANY_REQUESTS:
        message = f"{host} RESPONSE 429"
        return Throttled(message, retry_after=call.retry_after)
    if call.status >= _SERVER_ERRORS or call.status in _PASSING:
        return Unavailable(f"{host} RESPONSE {call.status}")
    return _unproved(error, context)


def _unproved(error: Exception, context: Context) -> ProviderError:
    """Say that the identity was not accepted, in the service's words."""
    message = error.message if isinstance(error, AzureError) else str(error)
    remedy = (
        f"check clientid and clientsecret, and that tenantID ({context.identity.tenant_id}) "
        f"is the tenant of vault {context.vault.name}"
    )
    return Unauthenticated(f"{context.request}: {context.quoted(message)}", remedy=remedy)


def _network(error: Exception, context: Context) -> ProviderError:
    """Say that a service could not be reached."""
    of_login = context.call.role == "login"
    return _unreachable(
        error, context, context.vault.cloud.authority if of_login else context.vault.url
    )


def _unreachable(error: Exception, context: Context, where: str) -> ProviderError:
    """Say why nobody answered; out of time counts as such only when the time is used up."""
    causes = list(_chain(error))
    if any(isinstance(cause, _TIMEOUTS) for cause in causes):
        return Unavailable(f"{where} did not answer in time")
    if refused := next((c for c in causes if isinstance(c, ssl.SSLCertVerificationError)), None):
        remedy = "if a proxy or a private authority signs, name its CA in REQUESTS_CA_BUNDLE"
        message = f"{where} is not trusted: {one_line(refused.verify_message)}"
        return Unavailable(message, remedy=remedy)
    if any(isinstance(cause, socket.gaierror | NameResolutionError) for cause in causes):
        remedy = f"check keyvaultName ({context.vault.name}), cloudName and the node's DNS"
        return Unavailable(f"{where}: no such host", remedy=remedy)
    kinds = " / ".join(dict.fromkeys(type(cause).__name__ for cause in reversed(causes)))
    return Unavailable(f"{where} could not be reached ({kinds})")


def _decoding(error: Exception, context: Context) -> ProviderError:
    """Say that an answer was no Key Vault answer; its status, if it tells of trouble, counts more.

    The SDK decodes before it looks at the status, so a proxy's error page ends here.
    """
    call = context.call
    if call.role == "vault" and call.status is not None and call.status >= _CLIENT_ERRORS:
        return _by_status(call.status, f"{context.request} RESPONSE {call.status}", "", context)
    return Malformed(
        f"{context.request}: the answer cannot be read ({type(error).__name__})",
        remedy="is there a proxy that answers in the vault's place?",
    )


def _value(error: Exception, context: Context) -> ProviderError:
    """Tell a challenge that the SDK refused from any other surprise."""
    if not str(error).startswith(_CHALLENGE_TEXT):
        return _decoding(error, context)
    return Unauthenticated(
        f"{context.request}: the challenge names a resource that is not the vault's own domain",
        remedy="no token was asked for; check who answers for this vault",
    )


def _response(error: Exception, context: Context) -> ProviderError:
    """Say what a vault answered instead of a secret."""
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if status is None:
        return _decoding(error, context)
    code, inner, words = _details(error)
    told = f"{context.request} RESPONSE {status} ERROR CODE: {code or 'none'}"
    told += f" ({inner})" if inner and inner != code else ""
    told += f": {context.quoted(words)}" if words else ""
    told += f" (request {one_line(context.call.request_id)})" if context.call.request_id else ""
    return _by_status(status, told, inner or code, context)


def _by_status(status: int, told: str, code: str, context: Context) -> ProviderError:
    """Return the error that a status means."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Throttled(told, retry_after=context.call.retry_after)
    kind, remedy = _verdict(status, code, context)
    return kind(told, remedy=remedy)


def _verdict(status: int, code: str, context: Context) -> tuple[type[ProviderError], str]:
    """Return whose fault a status is, and what helps."""
    match status:
        case HTTPStatus.NOT_FOUND:
            return NotFound, "check objectName and objectVersion"
        case HTTPStatus.BAD_REQUEST:
            return InvalidRequest, "check objectName and objectVersion"
        case HTTPStatus.FORBIDDEN:
            return PermissionDenied, _forbidden_remedy(code, context)
        case _ if status in _REDIRECTS:
            return Malformed, "a vault's redirects are not followed"
        case _ if status >= _SERVER_ERRORS or status in _PASSING:
            return Unavailable, ""
        case _:
            return Malformed, ""


def _forbidden_remedy(code: str, context: Context) -> str:
    """Say what helps against a refusal."""
    match code:
        case "SecretDisabled":
            return "enable the secret's current version, or name an enabled one in objectVersion"
        case "ForbiddenByFirewall":
            return "allow this node's address in the vault's firewall"
        case _:
            return (
                f"give client {context.identity.client_id} the role Key Vault Secrets User "
                f"(or the access policy get) on vault {context.vault.name}"
            )


def _details(error: Exception) -> tuple[str, str, str]:
    """Return the service's code, its inner code and its message, each empty if it sent none."""
    body = error.error if isinstance(error, HttpResponseError) else None
    if body is None:
        return "", "", ""
    inner = body.innererror.get("code") if isinstance(body.innererror, dict) else None
    return one_line(str(body.code or "")), one_line(str(inner or "")), str(body.message or "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came from, however the libraries link them."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        link = todo.pop(0)
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        todo += [link.__cause__, link.__context__, getattr(link, "inner_exception", None)]
        todo += [getattr(link, "reason", None), *link.args]


# Most specific first: the first class that fits decides.
RULES: Final[tuple[tuple[type[Exception], Callable[[Exception, Context], ProviderError]], ...]] = (
    (ClientAuthenticationError, _authentication),
    (IncompleteReadError, _network),
    (DecodeError, _decoding),
    (HttpResponseError, _response),
    (ServiceRequestError, _network),
    (ServiceResponseError, _network),
    (SerializationError, _decoding),
    (DeserializationError, _decoding),
    (ValueError, _value),
    (AzureError, _decoding),
    (OSError, _network),
)

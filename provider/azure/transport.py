"""The last place before the wire, for vaults and for Entra ID alike.

The SDK's own transport waits 300 s for an answer and 7 days for a request, follows what the
environment says, and knows nothing of the caller. This one

* gives each HTTP request at most what is left of the caller's budget,
* sends a vault's requests to that vault's host over TLS and nowhere else, whatever a redirect, a
  paging link or an id in an answer says, so that no token reaches another host,
* notes how each exchange went, because the SDK wraps the failures of a token request until their
  status is gone,
* keeps connections open between mounts, without cookies and without ~/.netrc, which would replace
  the bearer token.

Which call an exchange belongs to is in a context variable: credentials may be shared by calls.
"""

from __future__ import annotations

import contextlib
import contextvars
import http.cookiejar
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import attrs
import requests
import requests.adapters
import requests.auth
from azure.core.exceptions import ServiceRequestTimeoutError
from azure.core.pipeline.transport import RequestsTransport
from typing_extensions import override

from provider.errors import InvalidRequest, Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from requests import PreparedRequest

    from provider.budget import Budget

Role = Literal["vault", "login"]

CONNECT_S: Final = 10.0  # a SYN and two retransmissions
READ_S: Final = 30.0  # Key Vault's own time limit for a request
_HOSTS: Final = 64  # vaults and login hosts whose connections are kept
_CONNECTIONS: Final = 64  # kept for each of them
# First of these wins. requests reads the first two itself; Go and OpenSSL users set the third.
_TRUST_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@attrs.define
class Call:
    """One read on behalf of one caller, and its latest HTTP exchange.

    Attributes:
        budget: The caller's time.
        role: With whom the latest exchange was; None before the first.
        status: Its HTTP status; None if there was no answer.
        retry_after: The seconds that its `Retry-After` asked for.
        request_id: What the service calls it, for its support.
    """

    budget: Budget
    role: Role | None = None
    status: int | None = None
    retry_after: float | None = None
    request_id: str = ""

    def begin(self, role: Role) -> None:
        """Forget the previous exchange and start one."""
        self.role = role
        self.status = self.retry_after = None
        self.request_id = ""

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Note how the exchange went."""
        self.status = status
        self.retry_after = _seconds(headers.get("Retry-After", ""))
        self.request_id = headers.get("x-ms-request-id", "")


_CALL: Final[contextvars.ContextVar[Call]] = contextvars.ContextVar("call")


@contextlib.contextmanager
def calling(call: Call) -> Iterator[None]:
    """Let the requests of the block, in this thread, count for a call."""
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


class BoundedTransport(RequestsTransport):  # type: ignore[misc]  # exported lazily, so untyped
    """Sends requests within the budget of the current call.

    Args:
        session: Holds the connections; shared, and closed by its owner.
        role: Whom this one speaks to.
        host: The only host (with port) that it speaks to; None for Entra ID, whose own answer
            names the host of its token endpoint.
    """

    def __init__(self, session: requests.Session, *, role: Role, host: str | None = None) -> None:
        super().__init__(
            session=session, session_owner=False, connection_verify=session.verify or True
        )
        self._role: Role = role
        self._host = host.lower() if host else None

    @override
    def send(self, request: Any, **kwargs: Any) -> Any:
        """Send one request and read its answer."""
        call = _CALL.get()
        self._check_destination(request.url)
        call.begin(self._role)
        remaining = call.budget.remaining()
        if remaining <= 0:
            message = "no time left to begin a request"
            raise ServiceRequestTimeoutError(message)
        kwargs["connection_timeout"] = min(CONNECT_S, remaining)
        kwargs["read_timeout"] = min(READ_S, remaining)
        response = super().send(request, **kwargs)
        call.answered(response.status_code, response.headers)
        return response

    def _check_destination(self, url: str) -> None:
        """Refuse a request that would carry a credential elsewhere."""
        parts = urlsplit(url)
        host = parts.netloc.lower()
        if parts.scheme != "https" or (self._host is not None and host != self._host):
            message = f"a request to {parts.scheme}://{parts.hostname} was refused"
            raise Malformed(message, remedy="only the vault's own host is asked, over https")


class _KeepAuthorization(requests.auth.AuthBase):
    """Leaves the request as it is; its presence keeps requests from asking ~/.netrc."""

    @override
    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        return r


def new_session() -> requests.Session:
    """Return a session for all transports of the process; threads may share it."""
    session = requests.Session()
    session.verify = trust_store()
    session.auth = _KeepAuthorization()
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    adapter = requests.adapters.HTTPAdapter(
        pool_connections=_HOSTS, pool_maxsize=_CONNECTIONS, max_retries=0
    )
    session.mount("https://", adapter)
    return session


def trust_store() -> bool | str:
    """Return the CA bundle that the environment names, True for the one that comes with requests.

    Raises:
        InvalidRequest: it names one that does not exist.
    """
    for variable in _TRUST_VARIABLES:
        if path := os.environ.get(variable):
            if not Path(path).exists():
                message = f"{variable} names {path}, which does not exist"
                raise InvalidRequest(message, remedy="correct or remove it")
            return path
    return True


def _seconds(text: str) -> float | None:
    """Read a `Retry-After` in seconds; its other form, a date, is not used by these services."""
    return float(text) if text.isascii() and text.isdigit() else None

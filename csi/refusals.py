"""What the Kubernetes API answers, as errors that name the remedy and quote no body."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec

from csi.errors import (
    ApiConflict,
    ApiError,
    ApiExpired,
    ApiNotFound,
    ApiRejected,
    ApiUnavailable,
)

_RETRY_AFTER_LIMIT_S: Final = 600.0
_ROLE: Final = "ClusterRole secretproviderclasses-role of the chart (rbac.install)"
_ABSENT: Final = "no such object"
_UNKNOWN: Final = "it does not know the kind; install the CRDs"
# Of the client errors those that an operator removes, or that pass.
_PASSING: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "it does not accept the token of the service account",
    HTTPStatus.REQUEST_TIMEOUT: "it took too long",
    HTTPStatus.TOO_MANY_REQUESTS: "it has too much to do",
}


class _Details(msgspec.Struct):
    name: str = ""


class _Status(msgspec.Struct):
    """The body of a refusal; only what tells one 404 from another is read."""

    details: _Details | None = None


def refusal(
    verb: str, path: str, code: int, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> ApiError:
    """Return the error for an answer with a bad status.

    Args:
        verb: What was tried, as RBAC calls it.
        path: Where.
        code: The HTTP status.
        headers: Those of the answer.
        body: Read to tell a missing object from a missing kind.
    """
    what = f"cannot {verb} {path}: the Kubernetes API answers {code}"
    exact: ApiError | None = None
    match code:
        case HTTPStatus.FORBIDDEN:
            resource = path.split("/namespaces/", 1)[1].split("/")[1]
            exact = ApiUnavailable(
                f"{what}: RBAC does not allow {verb} on {resource}: the service account of the "
                f"node server needs the {_ROLE}"
            )
        case HTTPStatus.NOT_FOUND:
            known = _names_an_object(body)
            exact = ApiNotFound(f"{what}: {_ABSENT if known else _UNKNOWN}", kind_known=known)
        case HTTPStatus.CONFLICT:
            exact = ApiConflict(f"{what}: it exists already, or was changed meanwhile")
        case HTTPStatus.GONE:
            exact = ApiExpired(f"{what}: the version is too old")
        case _ if _is_final(code):
            exact = ApiRejected(f"{what}: the request is not valid for this server")
        case _:
            pass
    if exact is not None:
        return exact
    reason = _PASSING.get(code, "it cannot answer at the moment")
    return ApiUnavailable(f"{what}: {reason}", retry_after=_retry_after(headers or {}))


def _is_final(code: int) -> bool:
    if code in _PASSING:
        return False
    return HTTPStatus.BAD_REQUEST <= code < HTTPStatus.INTERNAL_SERVER_ERROR


def _names_an_object(body: bytes) -> bool:
    """Tell the 404 of an object from that of an unknown kind, which names none."""
    try:
        details = msgspec.json.decode(body, type=_Status).details
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return details is not None and bool(details.name)


def _retry_after(headers: Mapping[str, str]) -> float:
    value = headers.get("Retry-After", "")
    return min(float(value), _RETRY_AFTER_LIMIT_S) if value.isdecimal() else 0.0

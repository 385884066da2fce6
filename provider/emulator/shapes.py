"""JSON of the secrets API: bodies in, bundles and pages out."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from provider.emulator.messages import Reply, Request
from provider.emulator.vault import RETENTION_DAYS, Draft, Secret, SecretVersion, bad_parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE_SIZE = 25  # default and maximum of `maxresults`
_DAY_S = 86_400


class _Attributes(msgspec.Struct, frozen=True):
    """`attributes` of a request's body; the service ignores what it does not know."""

    enabled: bool | None = None
    nbf: int | None = None
    exp: int | None = None


class _Body(msgspec.Struct, frozen=True, rename="camel"):
    """Body of PUT and PATCH."""

    value: str | None = None
    content_type: str | None = None
    attributes: _Attributes | None = None
    tags: dict[str, str] | None = None


def read_draft(request: Request) -> Draft:
    """Return what the body of a PUT or PATCH says.

    Raises:
        ServiceError: 400; without the parser's text, which may quote the value.
    """
    try:
        body = msgspec.json.decode(request.body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = "The request body is not valid JSON of a secret."
        raise bad_parameter(message) from None
    attributes = body.attributes or _Attributes()
    return Draft(
        value=body.value,
        enabled=attributes.enabled,
        not_before=attributes.nbf,
        expires=attributes.exp,
        content_type=body.content_type,
        tags=body.tags,
    )


def properties(
    base: str, secret: Secret, version: SecretVersion | None = None
) -> dict[str, object]:
    """Return a secret bundle without its value.

    Args:
        base: The vault's URL, without a slash at the end.
        secret: The secret.
        version: Which version; None for an item of the list of secrets, which has no version in
            its id and the latest one's attributes.
    """
    shown = version or secret.latest
    attributes: dict[str, object] = {
        "enabled": shown.enabled,
        "nbf": shown.not_before,
        "exp": shown.expires,
        "created": shown.created,
        "updated": shown.updated,
        "recoveryLevel": "Recoverable+Purgeable",
        "recoverableDays": RETENTION_DAYS,
    }
    identifier = f"{base}/secrets/{secret.name}"
    content: dict[str, object] = {
        "id": identifier if version is None else f"{identifier}/{version.id}",
        "attributes": {key: value for key, value in attributes.items() if value is not None},
        "tags": shown.tags,
    }
    if shown.content_type is not None:
        content["contentType"] = shown.content_type
    return content


def deleted(base: str, secret: Secret) -> dict[str, object]:
    """Return the bundle of a deleted secret."""
    since = secret.deleted or 0
    return {
        "recoveryId": f"{base}/deletedsecrets/{secret.name}",
        "deletedDate": since,
        "scheduledPurgeDate": since + RETENTION_DAYS * _DAY_S,
        **properties(base, secret, secret.latest),
    }


def page(request: Request, base: str, items: Sequence[tuple[str, dict[str, object]]]) -> Reply:
    """Return the page of a list that a request asks for.

    Args:
        request: Its `maxresults` and `$skiptoken` say which.
        base: The vault's URL, without a slash at the end.
        items: All items with their sort keys, in order.

    Raises:
        ServiceError: 400.
    """
    query = request.query
    size = _page_size(query.get("maxresults"))
    start = _decode_marker(query["$skiptoken"]) if "$skiptoken" in query else ""
    rest = [(key, item) for key, item in items if key >= start]
    link = None
    if len(rest) > size:
        parameters = {
            "api-version": query["api-version"],
            "$skiptoken": base64.urlsafe_b64encode(rest[size][0].encode()).decode(),
            "maxresults": str(size),
        }
        link = f"{base}{request.path}?{urlencode(parameters, safe='$')}"
    return Reply.json(200, {"value": [item for _, item in rest[:size]], "nextLink": link})


def _page_size(text: str | None) -> int:
    if text is None:
        return PAGE_SIZE
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= PAGE_SIZE:
        message = f"maxresults must be a number from 1 to {PAGE_SIZE}."
        raise bad_parameter(message)
    return int(text)


def _decode_marker(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        message = "The value of $skiptoken is not valid."
        raise bad_parameter(message) from None

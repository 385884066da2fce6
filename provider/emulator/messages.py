"""What the HTTP layer hands to the services and takes back from them."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import attrs
import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from provider.emulator.errors import ServiceError


class Ending(enum.Enum):
    """How a connection goes on after the reply."""

    KEEP = "keep"  # keep-alive, as HTTP/1.1 has it
    RESET = "reset"  # a TCP reset in place of the reply
    TRUNCATE = "truncate"  # half of the body, then the end of the connection


@attrs.frozen(kw_only=True)
class Request:
    """One HTTP request; header names are lower-case, `host` has no port."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False, default=b"")

    @classmethod
    def parse(cls, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
        """Split the target of the request line; `path` stays percent-encoded."""
        path, _, query = target.partition("?")
        host = headers.get("host", "").lower()
        return cls(
            method=method,
            host=host.rpartition(":")[0] if ":" in host else host,
            path=path,
            query={key.lower(): value for key, value in parse_qsl(query, keep_blank_values=True)},
            headers=headers,
            body=body,
        )

    def form(self) -> dict[str, str]:
        """Return the fields of an `application/x-www-form-urlencoded` body."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))


@attrs.frozen(kw_only=True)
class Reply:
    """One HTTP reply."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = attrs.field(repr=False, default=b"")
    ending: Ending = Ending.KEEP

    @classmethod
    def json(cls, status: int, content: object, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Return a reply with a JSON body."""
        return cls(
            status=status,
            headers=(("Content-Type", "application/json; charset=utf-8"), *headers),
            body=msgspec.json.encode(content),
        )

    @classmethod
    def error(cls, error: ServiceError) -> Reply:
        """Return Key Vault's JSON of an error."""
        content: dict[str, object] = {"code": error.code, "message": error.message}
        if error.inner is not None:
            content["innererror"] = {"code": error.inner}
        return cls.json(error.status, {"error": content}, error.headers)

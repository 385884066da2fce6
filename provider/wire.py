"""The three JSON texts in a mount request, read with Go's rules.

The protocol carries attributes, secrets and permission as JSON inside protobuf strings. The rules
and, as far as they do not depend on the Go release, the texts are those of encoding/json: `null` is
accepted everywhere, a map's values are strings or null, of two equal keys the last one counts.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

from provider.errors import InvalidRequest, Prefixed
from provider.golang import trim_space
from provider.model import SecretBytes

MAX_JSON: Final = 4 * 1024 * 1024  # gRPC's default message limit; nothing longer arrives
_UINT32: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MAP: Final = "map[string]string"
_MODE: Final = "fs.FileMode"
_UINT32_MAX: Final = 2**32 - 1
_SIGN_BIT: Final = 2**31


class _Number(str):
    """A JSON number, kept as it was written: no size of it costs anything."""

    __slots__ = ()


def parse_attributes(text: str) -> dict[str, str]:
    """Read the class parameters and the volume context.

    Raises:
        InvalidRequest: not a JSON object of strings.
    """
    with Prefixed("failed to unmarshal attributes, error: "):
        return _string_map(text, quoting=True)


def parse_secrets(text: str) -> dict[str, SecretBytes] | None:
    """Read the node-publish Secret; None for `null`, which a driver sends when there is none.

    Raises:
        InvalidRequest: not a JSON object of strings. The text quotes nothing of the input.
    """
    with Prefixed("failed to unmarshal secrets, error: "):
        if trim_space(text) == "null":
            return None
        return {key: SecretBytes(value) for key, value in _string_map(text, quoting=False).items()}


def parse_permission(text: str) -> int:
    """Read the mode of files that name none, as the signed number that the answer carries.

    Raises:
        InvalidRequest: not a JSON number of 32 bits.
    """
    with Prefixed("failed to unmarshal file permission, error: "):
        value = _decode(text, quoting=True)
        if value is None:
            return 0
        if not isinstance(value, _Number):
            raise _mismatch(_kind(value), _MODE)
        number = int(value) if _UINT32.fullmatch(value) else _UINT32_MAX + 1
        if number > _UINT32_MAX:
            kind = f"number {value[:20]}"
            raise _mismatch(kind, _MODE)
        return number - 2 * _SIGN_BIT if number >= _SIGN_BIT else number


def _string_map(text: str, *, quoting: bool) -> dict[str, str]:
    """Read a JSON object whose values are strings or null."""
    value = _decode(text, quoting=quoting)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _mismatch(_kind(value), _MAP)
    strings: dict[str, str] = {}
    for key, item in value.items():
        if item is None:
            strings[_valid(key)] = ""
        elif isinstance(item, str) and not isinstance(item, _Number):
            strings[_valid(key)] = _valid(item)
        else:
            raise _mismatch(_kind(item), "string")
    return strings


def _decode(text: str, *, quoting: bool) -> object:
    """Parse JSON; with `quoting` the error shows the offending character as Go's does."""
    if len(text) > MAX_JSON:
        message = f"longer than {MAX_JSON} bytes"
        raise InvalidRequest(message)
    try:
        value: object = json.loads(
            text, parse_int=_Number, parse_float=_Number, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        problem = _syntax_error(text, error, quoting=quoting)
    except RecursionError:
        problem = InvalidRequest("exceeded max depth")
    else:
        return value
    raise problem  # out here: the parser's exception holds the whole text


def _syntax_error(text: str, error: json.JSONDecodeError, *, quoting: bool) -> InvalidRequest:
    """Word a syntax error as encoding/json does, as far as both parsers stop at one place."""
    rest = text[error.pos :]
    if not trim_space(rest) or error.msg.startswith("Unterminated"):
        return InvalidRequest("unexpected end of JSON input")
    if not quoting:
        return InvalidRequest(f"invalid character at position {error.pos}")
    where = (
        "after top-level value" if error.msg == "Extra data" else "looking for beginning of value"
    )
    return InvalidRequest(f"invalid character {_character(rest[0])} {where}")


def _refuse_constant(_: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    message = "invalid character looking for beginning of value"
    raise InvalidRequest(message)


def _character(character: str) -> str:
    """Quote a character as Go's error does."""
    return "'\\''" if character == "'" else repr(character)


def _kind(value: object) -> str:
    """Name a decoded value's JSON type with Go's word."""
    match value:
        case _Number():
            return "number"
        case str():
            return "string"
        case bool():
            return "bool"
        case list():
            return "array"
        case _:
            return "object"


def _mismatch(kind: str, wanted: str) -> InvalidRequest:
    """Say that JSON of one type stands where another is needed."""
    return InvalidRequest(f"json: cannot unmarshal {kind} into Go value of type {wanted}")


def _valid(text: str) -> str:
    """Replace lone surrogates, which JSON escapes can spell and no encoding can carry."""
    return _LONE_SURROGATE.sub("\ufffd", text)

"""Go's text functions, where users see their result.

Classes that were written for the Go provider depend on exactly what its standard library accepts,
and its error texts are what people search for. Each function here has the rules of one Go function;
none knows what it is used for.
"""

from __future__ import annotations

import re
from typing import Final

from provider.errors import InvalidRequest

# unicode.IsSpace; Python's own str.strip() also takes U+001C to U+001F.
_SPACE: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_OCTAL: Final = re.compile(r"[+-]?[0-7]+")
_ESCAPES: Final = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    '"': r"\"",
    "\\": r"\\",
}
_INT32_MAX: Final = 2**31 - 1
_INT32_MIN: Final = -(2**31)


def trim_space(text: str) -> str:
    """Remove leading and trailing white space (strings.TrimSpace)."""
    return text.strip(_SPACE)


def quote(text: str) -> str:
    """Return a Go string literal (strconv.Quote, the %q of its error texts)."""
    return '"' + "".join(map(_quote_character, text)) + '"'


def parse_bool(text: str) -> bool:
    """Read a boolean (strconv.ParseBool).

    Raises:
        InvalidRequest: it is none of the twelve spellings that Go accepts.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    message = f"strconv.ParseBool: parsing {quote(text)}: invalid syntax"
    raise InvalidRequest(message)


def parse_octal_int32(text: str) -> int:
    """Read a signed octal number of 32 bits (strconv.ParseInt with base 8).

    Raises:
        InvalidRequest: it is not octal, or too large.
    """
    if not _OCTAL.fullmatch(text):
        message = f"strconv.ParseInt: parsing {quote(text)}: invalid syntax"
        raise InvalidRequest(message)
    value = int(text, 8)
    if not _INT32_MIN <= value <= _INT32_MAX:
        message = f"strconv.ParseInt: parsing {quote(text)}: value out of range"
        raise InvalidRequest(message)
    return value


def _quote_character(character: str) -> str:
    """Escape one character as strconv.Quote does."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x20 or code == 0x7F:  # noqa: PLR2004  the control characters of ASCII
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004  the BMP

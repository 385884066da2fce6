"""Text that a service sent, made fit for an error message.

A service's words help, so they are passed on, but they come from outside: one line, of bounded
length, without control characters and without any secret that this call knows.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from provider.model import SecretBytes

MAX_TEXT: Final = 400  # characters of a service's message; Entra ID's longest useful ones are 300
REDACTED: Final = "<redacted>"
# A shorter secret would be found in ordinary words, and replacing it would tell what it is.
_SHORTEST: Final = 4
_TOKEN: Final = re.compile(
    r"eyJ[\w=-]*\.[\w=-]+\.[\w=-]*"  # a JSON web token
    r"|(?i:bearer)\s+[\w.~+/=-]{16,}"  # any other, as a header shows it
)


def one_line(text: str, *, limit: int = MAX_TEXT) -> str:
    """Return text from outside as one printable line, cut to a length."""
    words = "".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split()
    line = " ".join(words)
    return line if len(line) <= limit else line[:limit] + "…"


def scrub(text: str, secrets: Iterable[SecretBytes]) -> str:
    """Replace every secret and every token in a text, should a service have echoed one."""
    text = _TOKEN.sub(REDACTED, text)
    for secret in secrets:
        if len(secret) < _SHORTEST:
            continue
        plain = secret.reveal().decode(errors="replace")
        for form in (plain, quote(plain, safe=""), quote_plus(plain), json.dumps(plain)[1:-1]):
            text = text.replace(form, REDACTED)
    return text

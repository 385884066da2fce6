"""Text that a service sent, made fit for an error message.

A service's words help, so they are passed on, but they come from outside: one line, of bounded
length, without control characters and without any secret that this call knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from provider.model import SecretBytes

MAX_TEXT: Final = 400  # characters of a service's message; Entra ID's longest useful ones are 300
REDACTED: Final = "<redacted>"
# A shorter secret would be found in ordinary words, and replacing it would tell what it is.
_SHORTEST: Final = 4


def one_line(text: str, *, limit: int = MAX_TEXT) -> str:
    """Return text from outside as one printable line, cut to a length."""
    words = "".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split()
    line = " ".join(words)
    return line if len(line) <= limit else line[:limit] + "…"


def scrub(text: str, secrets: Iterable[SecretBytes]) -> str:
    """Replace every secret in a text, should a service have echoed one."""
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            text = text.replace(secret.reveal().decode(errors="replace"), REDACTED)
    return text

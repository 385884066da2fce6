"""Text from services made fit for errors."""

from __future__ import annotations

from urllib.parse import quote_plus

import pytest

from provider.model import SecretBytes
from provider.redaction import MAX_TEXT, REDACTED, one_line, scrub


def test_foreign_text_becomes_one_line() -> None:
    """Control characters and line breaks cannot leave the line."""
    assert one_line("a\r\nb\x1b[2Kc\t d") == "a b [2Kc d"


def test_foreign_text_is_cut() -> None:
    """A page in place of a message does not flood the error."""
    assert len(one_line("x" * 1_000_000)) == MAX_TEXT + 1


@pytest.mark.parametrize("form", ["a b&c=d/é", quote_plus("a b&c=d/é"), "a b&c=d/\\u00e9"])
def test_an_echoed_secret_is_replaced(form: str) -> None:
    """A secret is found as text, in a form body and in JSON."""
    assert scrub(f"you sent {form}.", [SecretBytes("a b&c=d/é")]) == f"you sent {REDACTED}."


@pytest.mark.parametrize("token", ["eyJhbGciOi.eyJzdWI.c2ln", "Bearer abcdef0123456789abcdef"])
def test_an_echoed_token_is_replaced(token: str) -> None:
    """Tokens are found by their form; nobody here knows them."""
    assert scrub(f"header {token} was bad", []) == f"header {REDACTED} was bad"


def test_a_tiny_secret_does_not_mangle_words() -> None:
    """Replacing each `a` of a message would tell that the secret is `a`."""
    assert scrub("a cat", [SecretBytes("a")]) == "a cat"

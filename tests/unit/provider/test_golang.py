"""Go's text functions: spellings, spaces and quotes."""

from __future__ import annotations

import pytest

from provider.errors import InvalidRequest
from provider.golang import parse_bool, parse_octal_int32, quote, trim_space


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        pytest.param("plain", '"plain"', id="plain"),
        pytest.param('say "hi"', r'"say \"hi\""', id="quotes"),
        pytest.param("a\\b\n\t\x00\x7f", r'"a\\b\n\t\x00\x7f"', id="ascii-controls"),
        pytest.param("café", '"café"', id="printable-unicode"),
        pytest.param("\u200b\x85", r'"\u200b\u0085"', id="unprintable-unicode"),
        pytest.param("\U000e0001", r'"\U000e0001"', id="beyond-the-bmp"),
    ],
)
def test_quote_escapes_like_strconv_quote(text: str, quoted: str) -> None:
    """A quoted text is the Go literal that the reference prints."""
    assert quoted == quote(text)


def test_trim_space_keeps_what_go_keeps() -> None:
    """The separators U+001C to U+001F are no space to Go, although they are to Python."""
    assert trim_space("\u00a0\u3000 a b\u2003\n") == "a b"
    assert trim_space("\x1ca\x1f") == "\x1ca\x1f"


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_parse_bool_reads_true_spellings(text: str) -> None:
    """Six spellings mean true."""
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_parse_bool_reads_false_spellings(text: str) -> None:
    """Six spellings mean false."""
    assert parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "tRue", "yes", " true", "2"])
def test_parse_bool_refuses_other_spellings(text: str) -> None:
    """Anything else is refused in Go's words."""
    with pytest.raises(InvalidRequest) as caught:
        parse_bool(text)
    assert str(caught.value) == f'strconv.ParseBool: parsing "{text}": invalid syntax'


@pytest.mark.parametrize(
    ("text", "value"), [("644", 0o644), ("+0", 0), ("-17777777777", -(2**31 - 1)), ("0000", 0)]
)
def test_parse_octal_reads_signed_numbers(text: str, value: int) -> None:
    """Sign and leading zeros are accepted."""
    assert value == parse_octal_int32(text)


def test_parse_octal_refuses_large_numbers() -> None:
    """A number beyond 32 bits is out of range."""
    with pytest.raises(InvalidRequest, match='parsing "20000000000": value out of range'):
        parse_octal_int32("20000000000")


@pytest.mark.parametrize("text", ["", "8", "0o7", "7_7", "\u0667", "7 "])
def test_parse_octal_refuses_other_digits(text: str) -> None:
    """Only ASCII octal digits are digits."""
    with pytest.raises(InvalidRequest, match="invalid syntax"):
        parse_octal_int32(text)

"""The JSON texts of a mount request."""

from __future__ import annotations

import pytest

from provider.errors import InvalidRequest
from provider.model import SecretBytes
from provider.wire import parse_attributes, parse_permission, parse_secrets

CANARY = "canary-7c1f"


def test_attributes_are_a_map_of_strings() -> None:
    """Values are strings, null is the empty string, of equal keys the last counts."""
    assert parse_attributes('{"a":"1","b":null,"a":"2"}') == {"a": "2", "b": ""}


def test_null_attributes_are_no_attributes() -> None:
    """A JSON null is an empty map."""
    assert parse_attributes("null") == {}


def test_lone_surrogates_become_replacement_marks() -> None:
    """What no encoding can carry is replaced, as Go's decoder does."""
    assert parse_attributes('{"a":"x\\ud800y"}') == {"a": "x\ufffdy"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("", "unexpected end of JSON input", id="empty"),
        pytest.param('{"a":', "unexpected end of JSON input", id="cut"),
        pytest.param('{"a":"b', "unexpected end of JSON input", id="cut-in-a-string"),
        pytest.param("{a}", "invalid character 'a' looking for beginning", id="bare-word"),
        pytest.param('{"a":NaN}', "invalid character looking for beginning", id="not-a-number"),
        pytest.param('{"a":1}', "cannot unmarshal number into Go value of type string", id="int"),
        pytest.param('{"a":{}}', "cannot unmarshal object into Go value of type string", id="map"),
        pytest.param("[" * 100_000, "exceeded max depth", id="deep"),
        pytest.param("9" * 10_000, "cannot unmarshal number into", id="huge-number"),
        pytest.param(" " * (4 * 1024 * 1024 + 1), "longer than", id="huge-text"),
    ],
)
def test_broken_attributes_are_refused(text: str, problem: str) -> None:
    """The error says where the request is broken, behind the reference's prefix."""
    with pytest.raises(InvalidRequest) as caught:
        parse_attributes(text)
    assert str(caught.value).startswith("failed to unmarshal attributes, error: ")
    assert problem in str(caught.value)


def test_secrets_are_wrapped_at_once() -> None:
    """Values of the node-publish Secret are never plain text in the program."""
    assert parse_secrets(f'{{"clientsecret":"{CANARY}"}}') == {"clientsecret": SecretBytes(CANARY)}


@pytest.mark.parametrize("text", ["null", " null\n"])
def test_null_secrets_differ_from_empty_ones(text: str) -> None:
    """A driver sends null when the class's pod names no Secret."""
    assert parse_secrets(text) is None
    assert parse_secrets("{}") == {}


@pytest.mark.parametrize(
    "text",
    [
        f'{{"clientsecret":"{CANARY}',
        f'{{"clientsecret":{CANARY}}}',
        f'{{"clientsecret":["{CANARY}"]}}',
        f'"{CANARY}"',
        f'{{"clientsecret":"x"}} {CANARY}',
    ],
)
def test_broken_secrets_are_not_quoted(text: str) -> None:
    """No error about the Secret, and nothing that it came from, shows a part of it."""
    with pytest.raises(InvalidRequest) as caught:
        parse_secrets(text)
    assert str(caught.value).startswith("failed to unmarshal secrets, error: ")
    error: BaseException | None = caught.value
    while error is not None:
        assert CANARY not in repr(vars(error)) + str(error)
        assert f"'{CANARY[0]}'" not in str(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("text", "mode"), [("420", 0o644), ("0", 0), ("null", 0), ("4294967295", -1)]
)
def test_permission_is_a_number_of_32_bits(text: str, mode: int) -> None:
    """The mode is read unsigned and carried signed."""
    assert mode == parse_permission(text)


@pytest.mark.parametrize("text", ["", '"420"', "true", "0644", "-1", "1e2", "4294967296", "[]"])
def test_broken_permission_is_refused(text: str) -> None:
    """Anything but a plain number is refused behind the reference's prefix."""
    with pytest.raises(InvalidRequest, match="failed to unmarshal file permission, error: "):
        parse_permission(text)

"""The objects parameter: what the vectors of the reference do not cover."""

from __future__ import annotations

import pytest

from fakes.keyvault import objects_text
from provider.errors import InvalidRequest
from provider.objects import MAX_OBJECTS, parse_array, parse_object, parse_objects


def refusal(text: str) -> str:
    """Return the error of an objects text."""
    with pytest.raises(InvalidRequest) as caught:
        parse_objects(text)
    return caught.value.message


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_blank_objects_are_not_set(text: str) -> None:
    """The reference's words, with what to do."""
    assert refusal(text) == "objects is not set"


@pytest.mark.parametrize("text", ["array:", "array: []", "array: null", "Array:\n  - a", "{}"])
def test_no_object_is_no_error(text: str) -> None:
    """An empty list is a valid request for nothing."""
    assert parse_objects(text) == ()


def test_a_broken_outer_text_has_its_prefix() -> None:
    """The outer text is named by the reference's words."""
    assert refusal("array: x").startswith(
        "failed to yaml unmarshal objects, error: yaml: unmarshal errors:\n  line 1: cannot"
    )


def test_a_broken_object_is_named_by_its_index() -> None:
    """Of several objects the broken one is told by its place."""
    text = "array:\n  - |\n    objectName: a\n  - |\n    - b\n"
    assert refusal(text).startswith("unmarshal failed for keyVaultObjects at index 1, error: yaml")


def test_an_invalid_object_is_named_by_its_fields() -> None:
    """Validation errors carry type, name and version."""
    wanted = {"objectName": "n", "objectType": "secret", "objectVersion": "v", "objectFormat": "x"}
    assert refusal(objects_text(wanted)) == (
        "failed to get objectType:secret, objectName:n, objectVersion:v: "
        "invalid objectFormat: x, should be PEM or PFX"
    )


def test_an_invalid_mode_is_refused() -> None:
    """The reference would write the file with mode 0 (docs/decisions/0010)."""
    wanted = {"objectName": "n", "objectType": "secret", "filePermission": "0999"}
    assert refusal(objects_text(wanted)) == (
        "failed to get objectType:secret, objectName:n, objectVersion:: file permission must be "
        'a valid octal number: strconv.ParseInt: parsing "0999": invalid syntax'
    )


def test_every_field_of_an_object_is_read() -> None:
    """Each key of the YAML has its place, trimmed."""
    wanted = parse_object(
        "objectName: ' n '\nobjectAlias: d/a\nobjectType: secret\nobjectVersion: v\n"
        "objectVersionHistory: 3\nobjectFormat: pem\nobjectEncoding: hex\nfilePermission: 0600\n"
    )
    assert (wanted.name, wanted.alias, wanted.type, wanted.version) == ("n", "d/a", "secret", "v")
    assert (wanted.version_history, wanted.format, wanted.encoding) == (3, "pem", "hex")
    assert wanted.file_permission == "0600"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("<<: {objectName: a}", "merge keys (<<) are not supported", id="merge"),
        pytest.param("objectName: !!binary '?'", "contains invalid base64 data", id="binary"),
        pytest.param("? [a]\n: b", "cannot unmarshal !!seq into string", id="complex-key"),
        pytest.param("objectVersionHistory: [1]", "cannot unmarshal !!seq into int32", id="list"),
        pytest.param("objectVersionHistory: .nan", "!!float `.nan` into int32", id="nan"),
        pytest.param("objectVersionHistory: 1e99", "!!float `1e99` into int32", id="large"),
        pytest.param("objectVersionHistory: true", "!!bool `true` into int32", id="bool"),
    ],
)
def test_undecodable_fields_are_refused(text: str, problem: str) -> None:
    """A field of the wrong type is told with its line."""
    with pytest.raises(InvalidRequest) as caught:
        parse_object(text)
    assert problem in caught.value.message
    assert "line 1: " in caught.value.message


def test_all_problems_are_told_together() -> None:
    """yaml.v3 collects decoding errors, so nobody mends them one by one."""
    with pytest.raises(InvalidRequest) as caught:
        parse_object("objectName: {}\nobjectType: []\n")
    assert caught.value.message == (
        "yaml: unmarshal errors:\n  line 1: cannot unmarshal !!map into string\n"
        "  line 2: cannot unmarshal !!seq into string"
    )


def test_binary_scalars_are_decoded() -> None:
    """An explicit !!binary is base64 of the text."""
    assert parse_object("objectName: !!binary aGVsbG8=").name == "hello"


def test_an_alias_stands_for_its_text() -> None:
    """Anchors work in the list, as in yaml.v3."""
    assert parse_array("array:\n  - &a 'objectName: x'\n  - *a\n") == ["objectName: x"] * 2


def test_a_null_key_is_no_field() -> None:
    """A key without text names nothing."""
    assert parse_object("~: x\nobjectName: a\n").name == "a"


def test_thousands_of_objects_are_refused() -> None:
    """The list has an end, with a remedy."""
    text = "array:\n" + "- 'objectName: a'\n" * (MAX_OBJECTS + 1)
    assert "the most are" in refusal(text)


def test_five_hundred_objects_are_accepted() -> None:
    """A large class is parsed."""
    wanted = [{"objectName": f"s{i}", "objectType": "secret"} for i in range(500)]
    assert len(parse_objects(objects_text(*wanted))) == 500

"""YAML as a tree of text: types of scalars, problems, bounds."""

from __future__ import annotations

import math

import pytest
import yaml

from provider import yamltext
from provider.errors import InvalidRequest
from provider.yamltext import Node, parse


def scalar(text: str) -> Node:
    """Return the one node of a text."""
    node = parse(text)
    assert node is not None
    return node


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("abc", "!!str `abc`"),
        ("'5'", "!!str `5`"),
        ("!!str 5", "!!str `5`"),
        ("12", "!!int `12`"),
        ("1_0", "!!int `1_0`"),
        ("5.5", "!!float `5.5`"),
        (".inf", "!!float `.inf`"),
        (".nan", "!!float `.nan`"),
        ("true", "!!bool `true`"),
        ("no", "!!str `no`"),
        ("~", "!!null `~`"),
        ("2020-01-01", "!!timestamp `2020-01-01`"),
        ("99999999999999999999", "!!float `9999999...`"),
        ("1" * 500, "!!str `1111111...`"),
        ("ééééééé", "!!str `ééé\ufffd...`"),
        ("[a]", "!!seq"),
        ("{a: b}", "!!map"),
        ("!mine x", "!mine `x`"),
        ("! 5", "!!str `5`"),
    ],
)
def test_a_node_is_described_as_by_yaml_v3(text: str, described: str) -> None:
    """The words for a value in an error are its YAML type and its beginning."""
    assert scalar(text).described() == described


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("0x1F", 31),
        ("0b101", 5),
        ("0o17", 15),
        ("017", 15),
        ("08", 8.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-0", 0),
        ("!!int '5'", 5),
        ("'5'", None),
        ("abc", None),
        ("_5", None),
        ("~", None),
        ("[1]", None),
        ("1e999", None),
    ],
)
def test_numbers_are_read_as_by_yaml_v3(text: str, number: float | None) -> None:
    """Only plain scalars and those tagged so are numbers."""
    assert scalar(text).number() == number


def test_infinity_is_a_number_without_bounds() -> None:
    """The special floats of YAML stay floats."""
    assert scalar(".inf").number() == math.inf


@pytest.mark.parametrize("text", ["", "# nothing", "---\n...\n"])
def test_an_empty_text_has_no_value(text: str) -> None:
    """Nothing, or an empty document, is nothing."""
    node = parse(text)
    assert node is None or node.is_null


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            "a: b: c", "yaml: mapping values are not allowed in this context", id="line-1"
        ),
        pytest.param(
            "a: b\n c: d",
            "yaml: line 2: mapping values are not allowed in this context",
            id="line-2",
        ),
        pytest.param("a: *b", "yaml: unknown anchor 'b' referenced", id="unknown-anchor"),
        pytest.param("&a [*a]", "yaml: anchor 'a' value contains itself", id="recursive-anchor"),
        pytest.param("a: \x01", "yaml: control characters are not allowed", id="control"),
    ],
)
def test_syntax_errors_read_as_those_of_yaml_v3(text: str, problem: str) -> None:
    """The texts of syntax errors are those that people know."""
    with pytest.raises(InvalidRequest) as caught:
        parse(text)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("[" * 60, "more than 50 levels", id="deep-sequence"),
        pytest.param("{a: " * 60, "more than 50 levels", id="deep-mapping"),
        pytest.param("[" * 500_000, "more than 50 levels", id="very-deep"),
        pytest.param("[" + "x," * 100_001 + "]", "more than 100000 nodes", id="many-nodes"),
        pytest.param("[&a x" + ",*a" * 1_001 + "]", "more than 1000 aliases", id="many-aliases"),
        pytest.param("x" * (1024 * 1024 + 1), "longer than 1048576 bytes", id="long"),
        pytest.param("é" * (512 * 1024 + 1), "longer than 1048576 bytes", id="long-in-bytes"),
    ],
)
def test_hostile_texts_hit_a_bound(text: str, problem: str) -> None:
    """Size, depth, nodes and aliases are bounded before they cost anything."""
    with pytest.raises(InvalidRequest, match=problem):
        parse(text)


def test_aliases_do_not_multiply() -> None:
    """A thousand references to a thousand are a thousand and two nodes, not a million."""
    text = "- &a [" + "x," * 900 + "]\n- [" + "*a," * 900 + "]\n"
    root = scalar(text)
    assert root.items[1].items[0] is root.items[0]


def test_only_the_first_document_counts() -> None:
    """What follows is not even parsed."""
    assert scalar("a\n---\n[").value == "a"


def test_the_parser_without_libyaml_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyYAML that was built without libyaml gives the same tree."""
    text = "array:\n  - |\n    objectName: 0755\n  - 'x'\n  - ~\n"
    fast = scalar(text)
    monkeypatch.setattr(yamltext, "_LOADER", yaml.BaseLoader)
    assert scalar(text) == fast

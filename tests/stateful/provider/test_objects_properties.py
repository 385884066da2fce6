"""Properties of the objects parser: what is written comes back, what is not YAML is refused."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING

import hypothesis
import yaml
from hypothesis import given
from hypothesis import strategies as st

from provider.content import content_bytes
from provider.errors import InvalidRequest
from provider.golang import trim_space
from provider.model import SecretBytes
from provider.objects import (
    VaultObject,
    check_file_name,
    parse_array,
    parse_file_permission,
    parse_object,
    parse_objects,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS = {
    "objectName": "name",
    "objectAlias": "alias",
    "objectType": "type",
    "objectVersion": "version",
    "objectFormat": "format",
    "objectEncoding": "encoding",
    "filePermission": "file_permission",
}

# What YAML can carry: no control characters, no surrogates.
texts = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff\ufffe\uffff"),
    max_size=40,
)
fields = st.dictionaries(st.sampled_from(sorted(FIELDS)), texts)
yamlish = st.text(st.sampled_from("ab: -[]{}&*!|>'\"#%@,\n\t~0123456789.?<"), max_size=80)


@given(fields, st.integers(-(2**31), 2**31 - 1), st.sampled_from(["json", "block"]))
def test_what_is_written_comes_back(written: Mapping[str, str], history: int, style: str) -> None:
    """Whatever text is quoted in YAML is the text of the field, trimmed."""
    whole = {**written, "objectVersionHistory": history}
    text = (
        json.dumps(whole, ensure_ascii=False)
        if style == "json"
        else yaml.safe_dump(whole, allow_unicode=True, default_style='"' if not history else None)
    )
    if style == "block" and not history:
        text = text.replace('"objectVersionHistory": !!int "0"', "objectVersionHistory: 0")
    parsed = parse_object(text)
    assert parsed.version_history == history
    for key, field in FIELDS.items():
        assert getattr(parsed, field) == trim_space(written.get(key, ""))


@given(st.lists(texts, max_size=20))
def test_a_list_of_texts_comes_back(items: list[str]) -> None:
    """The outer list keeps order, number and every character of its items."""
    assert parse_array(json.dumps({"array": items}, ensure_ascii=False)) == items


@given(st.one_of(st.text(max_size=200), yamlish))
@hypothesis.example("a: " * 100)
@hypothesis.example("&a [*a, *a]")
@hypothesis.example("? ? ? ?")
@hypothesis.example("!!int {}")
@hypothesis.example("array:\n- !!binary x\n- ! y\n- !!null z\n- <<: a")
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """Nothing but InvalidRequest leaves, whatever a class holds."""
    for parse in (parse_objects, parse_array, parse_object):
        with contextlib.suppress(InvalidRequest):
            parse(text)


@given(yamlish)
def test_a_parsed_object_is_what_pyyaml_reads(text: str) -> None:
    """Where both read a text as a mapping of plain texts, they agree on its fields."""
    try:
        parsed = parse_object(f"objectName: {text}")
        model = yaml.load(f"objectName: {text}", Loader=yaml.BaseLoader)  # noqa: S506 - text only
    except (InvalidRequest, yaml.YAMLError):
        return
    value = model.get("objectName") if isinstance(model, dict) else None
    if isinstance(value, str) and parsed.name:
        assert parsed.name == trim_space(value)


@given(st.text(st.sampled_from("ab./"), max_size=12))
def test_an_accepted_file_name_stays_inside(name: str) -> None:
    """No accepted name is absolute or climbs."""
    with contextlib.suppress(InvalidRequest):
        check_file_name(name)
        assert name
        assert not name.startswith("/")
        assert ".." not in name.split("/")


@given(st.integers(0, 0o7777), st.sampled_from(["", "0", "00", "+"]))
def test_every_octal_mode_is_read(mode: int, prefix: str) -> None:
    """Leading zeros and a plus sign change nothing."""
    assert parse_file_permission(f"{prefix}{mode:o}", default=1) == mode


@given(st.text(max_size=8))
def test_a_mode_is_octal_or_refused(text: str) -> None:
    """Any text is a mode, the default, or an error."""
    with contextlib.suppress(InvalidRequest):
        mode = parse_file_permission(text, default=0o644)
        assert 0 <= mode <= 0o7777
        assert not text or mode == int(text, 8)


@given(st.binary(max_size=100), st.lists(st.integers(0, 200), max_size=5))
def test_base64_survives_newlines_anywhere(content: bytes, breaks: list[int]) -> None:
    """Encoded bytes come back, however the text is wrapped."""
    text = base64.b64encode(content).decode()
    for at in breaks:
        text = text[:at] + "\r\n" + text[at:]
    assert content_bytes(SecretBytes(text), "secret", "Base64").reveal() == content


@given(st.text(st.sampled_from("AZaz09+/=\n -_é"), max_size=16))
def test_base64_is_strict_like_go(text: str) -> None:
    """A text is decoded exactly if its characters without newlines are whole quanta."""
    packed = text.replace("\n", "")
    try:
        expected: bytes | None = base64.b64decode(packed, validate=True)
        if len(packed) % 4 or "=" in packed.rstrip("="):
            expected = None
    except ValueError:
        expected = None
    try:
        decoded: bytes | None = content_bytes(SecretBytes(text), "secret", "base64").reveal()
    except InvalidRequest as error:
        decoded = None
        position = int(error.message.rpartition(" ")[2])
        assert 0 <= position <= len(text.encode())
    assert decoded == expected


@given(st.binary(max_size=60), st.booleans())
def test_hex_comes_back_in_either_case(content: bytes, upper: bool) -> None:  # noqa: FBT001 - drawn
    """Digits of both cases are digits."""
    text = content.hex().upper() if upper else content.hex()
    assert content_bytes(SecretBytes(text), "secret", "hex").reveal() == content


@given(texts, texts)
def test_the_file_name_prefers_the_alias(name: str, alias: str) -> None:
    """The alias is the path whenever there is one, the id never holds it."""
    wanted = VaultObject(name=name, alias=alias, type="secret")
    assert wanted.file_name == (alias or name)
    assert wanted.object_id == f"secret/{name}"

"""Properties of the parameter parser and of the JSON around it."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from fakes.keyvault import attributes
from provider.errors import InvalidRequest
from provider.golang import trim_space
from provider.parameters import check_vault_name, parse_parameters, parse_switch
from provider.redaction import MAX_TEXT, one_line, scrub
from provider.wire import parse_attributes, parse_permission, parse_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = (
    "csi.storage.k8s.io/pod.name",
    "csi.storage.k8s.io/pod.namespace",
    "keyvaultName",
    "tenantID",
    "tenantId",
    "cloudName",
    "cloudEnvFileName",
    "usePodIdentity",
    "useVMManagedIdentity",
    "useAzureTokenProxy",
    "userAssignedIdentityID",
    "clientID",
    "objects",
)
TRUE = ("1", "t", "T", "TRUE", "true", "True")
FALSE = ("0", "f", "F", "FALSE", "false", "False", "", " ")

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
spaces = st.text(st.sampled_from(" \t\n\u00a0\u3000"), max_size=3)


@given(st.dictionaries(st.one_of(st.sampled_from(KEYS), words), words, max_size=15))
def test_any_attributes_are_read_or_refused(given_attributes: Mapping[str, str]) -> None:
    """Nothing but InvalidRequest leaves, and what is accepted is complete."""
    with contextlib.suppress(InvalidRequest):
        parameters = parse_parameters(given_attributes)
        assert parameters.pod_name
        assert parameters.pod_namespace
        assert parameters.vault_name
        assert parameters.tenant_id


@given(words, spaces, spaces)
def test_space_around_a_value_has_no_meaning(value: str, before: str, after: str) -> None:
    """A padded value is read as the value."""
    plain = parse_parameters(attributes(cloudName=value, clientID=value))
    padded = parse_parameters(
        attributes(cloudName=before + value + after, clientID=before + value + after)
    )
    assert plain == padded
    assert plain.cloud_name == trim_space(value)


@given(st.sampled_from(TRUE + FALSE), spaces, spaces)
def test_switches_read_go_s_booleans(text: str, before: str, after: str) -> None:
    """Every spelling keeps its meaning with space around it."""
    assert parse_switch(before + text + after) is (text in TRUE)


@given(words)
def test_other_switches_are_refused(text: str) -> None:
    """A text is one of the spellings or an error; nothing is guessed."""
    with contextlib.suppress(InvalidRequest):
        assert parse_switch(text) is (trim_space(text) in TRUE)
        assert trim_space(text) in TRUE + FALSE


@given(st.dictionaries(words, words))
def test_unknown_keys_change_nothing(extra: dict[str, str]) -> None:
    """Keys of others are ignored, apart from warnings."""
    extra = {key: value for key, value in extra.items() if key not in KEYS and "/" not in key}
    with_them = parse_parameters({**extra, **attributes()})
    assert with_them.warnings is not None
    plain = parse_parameters(attributes())
    assert (with_them.vault_name, with_them.objects) == (plain.vault_name, plain.objects)


@given(st.text(max_size=30))
def test_an_accepted_vault_name_is_one_label(name: str) -> None:
    """Whatever passes can only be a label in front of the cloud's domain."""
    with contextlib.suppress(InvalidRequest):
        check_vault_name(name)
        assert name.isascii()
        assert name.replace("-", "a").isalnum()
        assert 3 <= len(name) <= 24


@given(st.dictionaries(words, st.one_of(words, st.none())))
def test_a_json_map_comes_back(written: dict[str, str | None]) -> None:
    """Attributes and secrets survive their JSON; null is the empty string."""
    expected = {key: value or "" for key, value in written.items()}
    assert parse_attributes(json.dumps(written)) == expected
    secrets = parse_secrets(json.dumps(written))
    assert secrets is not None
    assert {key: value.reveal().decode() for key, value in secrets.items()} == expected


@given(st.text(max_size=60))
def test_any_text_is_json_or_refused(text: str) -> None:
    """Nothing but InvalidRequest leaves the three decoders."""
    for parse in (parse_attributes, parse_secrets, parse_permission):
        with contextlib.suppress(InvalidRequest):
            parse(text)


@given(st.integers(0, 2**32 - 1))
def test_every_permission_fits_the_answer(mode: int) -> None:
    """32 unsigned bits become 32 signed ones."""
    assert parse_permission(str(mode)) % 2**32 == mode


@given(st.text(max_size=3_000))
def test_foreign_text_is_always_one_short_line(text: str) -> None:
    """Whatever a service sends, an error stays one printable line."""
    line = scrub(one_line(text), [])
    assert line.isprintable()
    assert len(line) <= MAX_TEXT + 1

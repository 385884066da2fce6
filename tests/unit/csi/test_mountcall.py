"""What providers are asked, byte for byte."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.mountcall import go_json, mount_call
from csi.records import Credentials, ObjectVersion
from fakes.kubelet import publish_request, target_of


def test_golden_request_has_the_reference_bytes() -> None:
    """Keys sorted, no spaces, attributes over parameters, permission 420, tokens once more."""
    credentials = Credentials(
        secrets={"clientid": "id", "clientsecret": "a<b>&c"}, tokens='{"aud":{"token":"t"}}'
    )
    call = mount_call(
        {"keyvaultName": "kv", "objects": "array:\n"},
        publish_request().spec,
        credentials,
        (ObjectVersion("secret/a", "1"),),
    )
    assert call.attributes == (
        '{"csi.storage.k8s.io/ephemeral":"true",'
        '"csi.storage.k8s.io/pod.name":"web",'
        '"csi.storage.k8s.io/pod.namespace":"shop",'
        '"csi.storage.k8s.io/pod.uid":"uid-web",'
        '"csi.storage.k8s.io/serviceAccount.name":"default",'
        '"csi.storage.k8s.io/serviceAccount.tokens":"{\\"aud\\":{\\"token\\":\\"t\\"}}",'
        '"keyvaultName":"kv","objects":"array:\\n","secretProviderClass":"vault"}'
    )
    assert call.secrets == '{"clientid":"id","clientsecret":"a\\u003cb\\u003e\\u0026c"}'
    assert (call.permission, call.target) == ("420", target_of())
    assert call.current == (ObjectVersion("secret/a", "1"),)


def test_no_secrets_are_the_literal_null() -> None:
    """Providers parse the string, so it is never empty."""
    call = mount_call({}, publish_request().spec, Credentials(), ())
    assert call.secrets == "null"
    assert "serviceAccount.tokens" not in call.attributes


def test_call_hides_its_strings() -> None:
    """A call that is printed shows neither attributes nor secrets."""
    credentials = Credentials(secrets={"a": "canary"}, tokens="canary")
    assert "canary" not in repr(
        mount_call({"p": "canary"}, publish_request().spec, credentials, ())
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("é", '"é"'),
        ("\u2028\u2029", '"\\u2028\\u2029"'),
        ('"\\', '"\\"\\\\"'),
        ("\x01\t\x7f", '"\\u0001\\t\x7f"'),
    ],
)
def test_strings_are_escaped_as_in_go(text: str, expected: str) -> None:
    """Go keeps what is not ASCII and escapes the two line separators of JavaScript."""
    assert go_json({"k": text}) == '{"k":' + expected + "}"


@given(st.dictionaries(st.text(), st.text()))
def test_escaping_never_changes_the_value(value: dict[str, str]) -> None:
    """Whatever is escaped, a reader gets back what was written, with sorted keys."""
    decoded = json.loads(go_json(value))
    assert decoded == value
    assert list(decoded) == sorted(value)


def test_our_options_do_not_reach_the_provider() -> None:
    """Keys of ours in a pod's attributes are left out."""
    spec = publish_request().spec
    spec = attrs.evolve(spec, attributes={**spec.attributes, "akvfs/filesystem": "tmpfs"})
    assert "akvfs" not in mount_call({}, spec, Credentials(), ()).attributes

"""Values that cannot print a secret."""

from __future__ import annotations

import copy
import json
import pickle
import traceback

import pytest

from provider.model import Cloud, SecretBytes, ServicePrincipal, Vault

CANARY = "canary-9d20"
SECRET = SecretBytes(CANARY)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(str(SECRET), id="str"),
        pytest.param(repr(SECRET), id="repr"),
        pytest.param(f"{SECRET:>40}", id="format"),
        pytest.param("%s" % SECRET, id="percent"),  # noqa: UP031 - the form under test
        pytest.param(json.dumps(SECRET, default=str), id="json"),
        pytest.param(repr([SECRET]), id="in-a-list"),
        pytest.param(
            repr(ServicePrincipal(tenant_id="t", client_id="c", client_secret=SECRET)), id="record"
        ),
    ],
)
def test_a_secret_prints_its_length_only(text: str) -> None:
    """Every way to make text of a secret gives its length."""
    assert "<secret 11 bytes>" in text
    assert CANARY not in text


def test_a_secret_is_revealed_by_name() -> None:
    """The bytes come out of one method."""
    assert SECRET.reveal() == CANARY.encode()
    assert SecretBytes(b"\xff").reveal() == b"\xff"


def test_secrets_compare_by_content() -> None:
    """Equal bytes are equal secrets, and nothing else is."""
    assert SecretBytes(CANARY) == SECRET
    assert SecretBytes("other") != SECRET
    assert CANARY.encode() != SECRET


@pytest.mark.parametrize("misuse", [hash, pickle.dumps, copy.copy, copy.deepcopy, bytes])
def test_misuse_of_a_secret_raises(misuse: object) -> None:
    """What would copy a secret somewhere unseen is a TypeError that does not show it."""
    assert callable(misuse)
    with pytest.raises(TypeError) as caught:
        misuse(SECRET)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_vault_url_is_plain_concatenation() -> None:
    """A suffix with a port works, as in the reference."""
    cloud = Cloud(name="c", authority="https://login/", vault_suffix="vault.localhost:8443")
    assert Vault(name="kv", cloud=cloud).url == "https://kv.vault.localhost:8443/"

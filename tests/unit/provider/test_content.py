"""Bytes and modes of files."""

from __future__ import annotations

import traceback

import pytest

from provider.content import PEM, PKCS12, check_deliverable, content_bytes, secret_file
from provider.errors import InvalidRequest, Malformed, Unsupported
from provider.model import SecretBundle, SecretBytes
from provider.objects import VaultObject

DB = VaultObject(name="db", type="secret")
ID = "https://kv.vault.test/secrets/db/v1"


def bundle(value: str | None = "value", **changes: str | None) -> SecretBundle:
    """Return what a vault answers."""
    fields: dict[str, str | None] = {"object_id": ID, "content_type": None, "key_id": None}
    fields |= changes
    return SecretBundle(value=None if value is None else SecretBytes(value), **fields)


@pytest.mark.parametrize("value", ["", "line\n", "\r\n", "a\x00b", "é😀", " x "])
def test_text_is_written_byte_for_byte(value: str) -> None:
    """Nothing adds, removes or converts a byte."""
    file = secret_file(DB, bundle(value), default_mode=0o644)
    assert file.content.reveal() == value.encode()
    assert (file.path, file.mode, file.object_id, file.version) == ("db", 0o644, "secret/db", "v1")


def test_alias_and_permission_shape_the_file() -> None:
    """The path is the alias, the mode is the object's own; the id stays the name."""
    wanted = VaultObject(name="db", type="secret", alias="dir/pw", file_permission="0400")
    file = secret_file(wanted, bundle(), default_mode=0o644)
    assert (file.path, file.mode, file.object_id) == ("dir/pw", 0o400, "secret/db")


@pytest.mark.parametrize(("permission", "mode"), [("4755", 0o755), ("", 0o777)])
def test_a_mode_has_permission_bits_only(permission: str, mode: int) -> None:
    """Setuid bits and a driver's 4294967295 never reached a file in the reference either."""
    wanted = VaultObject(name="db", type="secret", file_permission=permission)
    assert secret_file(wanted, bundle(), default_mode=-1).mode == mode


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (bundle(None), "secret value is nil"),
        (bundle(object_id=None), "secret id is nil"),
    ],
)
def test_an_incomplete_answer_is_malformed(answer: SecretBundle, message: str) -> None:
    """The reference's words for what no vault should send."""
    with pytest.raises(Malformed, match=message):
        secret_file(DB, answer, default_mode=0)


def test_a_certificate_in_pem_form_is_delivered() -> None:
    """The secret behind a PEM certificate is text like any other."""
    answer = bundle("-----BEGIN", key_id="k", content_type=PEM)
    assert secret_file(DB, answer, default_mode=0).content.reveal() == b"-----BEGIN"


@pytest.mark.parametrize(
    ("content_type", "kind", "message"),
    [
        (PKCS12, Unsupported, "in PKCS#12 form is not supported yet"),
        ("text/plain", InvalidRequest, "failed to get certificate. unknown content type 'text/pl"),
        (None, InvalidRequest, "failed to get certificate. unknown content type ''"),
    ],
)
def test_other_certificates_are_refused(
    content_type: str | None, kind: type[InvalidRequest], message: str
) -> None:
    """What would need decoding is not written undecoded."""
    with pytest.raises(kind) as caught:
        secret_file(DB, bundle(key_id="k", content_type=content_type), default_mode=0)
    assert message in str(caught.value)


def test_a_content_type_alone_means_nothing() -> None:
    """Without a key id it is an ordinary secret, whatever its author said."""
    assert (
        secret_file(DB, bundle("x", content_type=PKCS12), default_mode=0).content.reveal() == b"x"
    )


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("abc", 0),
        ("abcde", 4),
        ("Zg==x", 4),
        ("Zg=", 3),
        ("Zm9v=", 4),
        ("Zm9vZg=\n=x", 9),
        ("Zg=a", 3),
        ("Zm8=Zm8=", 4),
        ("a=", 1),
        ("=", 0),
        ("Zg\n", 1),
        ("é", 0),
    ],
)
def test_base64_faults_are_placed_as_by_go(text: str, position: int) -> None:
    """The position in the error is the one that Go's decoder reports."""
    with pytest.raises(InvalidRequest) as caught:
        content_bytes(SecretBytes(text), "secret", "base64")
    assert caught.value.message == f"illegal base64 data at input byte {position}"


@pytest.mark.parametrize("encoding", ["base64", "hex"])
def test_undecodable_content_is_not_quoted(encoding: str) -> None:
    """No character of a secret gets into an error, which Go's hex decoder allows."""
    with pytest.raises(InvalidRequest) as caught:
        content_bytes(SecretBytes("§canary§"), "secret", encoding)
    text = "".join(traceback.format_exception(caught.value))
    assert "§" not in text.split("InvalidRequest: ")[-1]
    assert "objectEncoding" in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"type": "key"}, Unsupported, "objectType key is not supported yet"),
        ({"type": "cert"}, Unsupported, "objectType cert is not supported yet"),
        ({"type": "Secret"}, InvalidRequest, "Invalid vaultObjectTypes. Should be secret, key"),
        ({"type": ""}, InvalidRequest, "Invalid vaultObjectTypes. Should be secret, key"),
        ({"version_history": 2}, Unsupported, "objectVersionHistory 2 is not supported yet"),
        ({"format": "PFX"}, Unsupported, "objectFormat pfx is not supported yet"),
        ({"name": "../keys/k"}, InvalidRequest, 'objectName "../keys/k" is not a name'),
        ({"name": "", "alias": "a"}, InvalidRequest, 'objectName "" is not a name'),
        ({"name": "a" * 128}, InvalidRequest, "is not a name that a vault can hold"),
        ({"version": "v?api-version=1"}, InvalidRequest, "is not a version id"),
    ],
)
def test_undeliverable_objects_are_refused_early(
    changes: dict[str, str | int], kind: type[InvalidRequest], message: str
) -> None:
    """What this version cannot do, and what no vault holds, never becomes a request."""
    fields: dict[str, str | int] = {"name": "db", "type": "secret"}
    fields |= changes
    with pytest.raises(kind) as caught:
        check_deliverable(VaultObject(**fields))  # type: ignore[arg-type]  # mixed on purpose
    assert message in str(caught.value)


def test_history_of_one_is_a_single_version() -> None:
    """One and less mean no history."""
    for history in (-5, 0, 1):
        check_deliverable(VaultObject(name="db", type="secret", version_history=history))

"""The reference provider's own answers (tests/conformance/vectors) against ours.

Each vector is matched exactly, or stands in a table with the answer that we give instead and the
reason. The tables are checked too: an entry that is no longer needed fails.

Groups of later issues (keys, certificates, PFX, version history, other identities, metrics) are
named in `LATER`, so that a new group in the file cannot be overlooked.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest

from provider.azure.clouds import parse_environment, public_cloud
from provider.content import content_bytes
from provider.errors import InvalidRequest
from provider.golang import trim_space
from provider.identity import service_principal
from provider.model import Cloud, SecretBytes, Vault
from provider.objects import (
    VaultObject,
    check_encoding,
    check_file_name,
    check_format,
    check_object,
    parse_array,
    parse_file_permission,
    parse_object,
)
from provider.parameters import check_vault_name, parse_switch, tenant_of
from provider.server import parse_endpoint
from provider.wire import parse_attributes, parse_permission

if TYPE_CHECKING:
    from collections.abc import Callable

Vector = dict[str, Any]

VECTORS: Final[dict[str, list[Vector]]] = json.loads(
    Path(__file__).with_name("vectors").joinpath("akv-reference.json").read_text(encoding="utf-8")
)

LATER: Final = frozenset(
    {
        "cert_chain",
        "jwk_pem",
        "pfx",
        "redact",
        "sa_tokens",
        "scope",
        "split_cert_key",
        "version_history",
    }
)

FIELDS: Final = {
    "objectName": "name",
    "objectAlias": "alias",
    "objectType": "type",
    "objectVersion": "version",
    "objectVersionHistory": "version_history",
    "objectFormat": "format",
    "objectEncoding": "encoding",
    "filePermission": "file_permission",
}


@attrs.frozen
class Difference:
    """One vector that we answer differently.

    Attributes:
        ours: What we answer.
        why: The reason.
    """

    ours: object
    why: str


INVALID_MODE = "an invalid mode is an error and not mode 0 (docs/decisions/0010)"
UNQUOTED = "no character of a secret goes into an error"
INVALID_OCTAL = 'file permission must be a valid octal number: strconv.ParseInt: parsing "{}": {}'
UNQUOTED_FILE = "nothing of a cloud file goes into an error"

DIFFERENCES: Final[dict[str, dict[str, Difference]]] = {
    "object_yaml": {
        "objectName: a\nfilePermission: 493\n": Difference(
            (
                dict.fromkeys(FIELDS, "")
                | {"objectName": "a", "objectVersionHistory": 0, "filePermission": "493"},
                None,
                INVALID_OCTAL.format("493", "invalid syntax"),
            ),
            INVALID_MODE,
        ),
    },
    "file_permission": {
        "-755": Difference(
            (0, INVALID_OCTAL.format("-755", "value out of range")),
            INVALID_MODE,
        ),
    },
    "content_bytes": {
        "0xff": Difference((None, "encoding/hex: invalid byte at position 1"), UNQUOTED),
        "zz": Difference((None, "encoding/hex: invalid byte at position 0"), UNQUOTED),
        "00ff\n": Difference((None, "encoding/hex: invalid byte at position 4"), UNQUOTED),
    },
    "cloud_file": {
        "not json": Difference(("", "", "", "the file is not a JSON object"), UNQUOTED_FILE),
        "[]": Difference(("", "", "", "the file is not a JSON object"), UNQUOTED_FILE),
    },
}

# How a vector is recognised in its table.
KEYS: Final = {"content_bytes": "content", "cloud_file": "body"}


def attempt(action: Callable[[], Any], failed: object) -> tuple[Any, str | None]:
    """Return what an action gives, or what stands for a failure and the error's text."""
    try:
        return action(), None
    except InvalidRequest as error:
        return failed, error.message


def object_yaml(vector: Vector) -> tuple[object, object]:
    """Decode one object, then check it."""
    theirs = vector["object"] if vector["yaml_err"] is None else None
    expected = (theirs, vector["yaml_err"], vector["validate_err"])
    parsed, problem = attempt(lambda: parse_object(vector["in"]), None)
    if parsed is None:
        return expected, (None, problem, None)
    _, invalid = attempt(lambda: check_object(parsed), None)
    ours = {name: getattr(parsed, field) for name, field in FIELDS.items()}
    return expected, (ours, problem, invalid)


def objects_array(vector: Vector) -> tuple[object, object]:
    """Decode a list of objects; absent and empty lists mean the same."""
    expected = ([] if vector["err"] else vector["array"] or [], vector["err"])
    return expected, attempt(lambda: parse_array(vector["in"]), [])


def file_name(vector: Vector) -> tuple[object, object]:
    """Check a file name."""
    return vector["err"], attempt(lambda: check_file_name(vector["in"]), None)[1]


def file_permission(vector: Vector) -> tuple[object, object]:
    """Read a mode."""
    ours = attempt(lambda: parse_file_permission(vector["in"], default=vector["default"]), 0)
    return (vector["mode"], vector["err"]), ours


def object_format(vector: Vector) -> tuple[object, object]:
    """Check a format."""
    ours = attempt(lambda: check_format(vector["format"], vector["type"]), None)
    return vector["err"], ours[1]


def object_encoding(vector: Vector) -> tuple[object, object]:
    """Check an encoding."""
    ours = attempt(lambda: check_encoding(vector["encoding"], vector["type"]), None)
    return vector["err"], ours[1]


def object_uid(vector: Vector) -> tuple[object, object]:
    """Name an object and its file."""
    wanted = VaultObject(**{FIELDS[key]: value for key, value in vector["object"].items()})
    return (vector["uid"], vector["file_name"]), (wanted.object_id, wanted.file_name)


def parse_bool(vector: Vector) -> tuple[object, object]:
    """Read a boolean parameter."""
    return (vector["value"], vector["err"]), attempt(
        lambda: parse_switch(vector["in"]), failed=False
    )


def tenant_id(vector: Vector) -> tuple[object, object]:
    """Choose the tenant."""
    return vector["value"], tenant_of(vector["parameters"])


def vault_name(vector: Vector) -> tuple[object, object]:
    """Check a vault's name, and build its URL whether or not it is valid."""
    _, problem = attempt(lambda: check_vault_name(vector["in"]), None)
    problem = problem and problem.removeprefix("failed to get vault: ")
    url = Vault(name=vector["in"], cloud=public_cloud("AzurePublicCloud")).url
    return (vector["url_public"], vector["err"]), (url, problem)


def decoded_content(vector: Vector) -> tuple[object, object]:
    """Decode the content of a secret."""
    value = SecretBytes(vector["content"])
    decoded, problem = attempt(
        lambda: content_bytes(value, vector["type"], vector["encoding"]), None
    )
    ours = None if decoded is None else base64.b64encode(decoded.reveal()).decode()
    return (vector.get("bytes_b64"), vector["err"]), (ours, problem)


def node_publish_secret(vector: Vector) -> tuple[object, object]:
    """Find client id and secret."""
    given = vector["secrets"]
    secrets = None if given is None else {key: SecretBytes(given[key]) for key in given}
    found, problem = attempt(lambda: service_principal(secrets), ("", SecretBytes("")))
    expected = (vector["clientID"], vector["clientSecret"], vector["err"])
    return expected, (found[0], found[1].reveal().decode(), problem)


def endpoint(vector: Vector) -> tuple[object, object]:
    """Read an endpoint."""
    parsed, problem = attempt(lambda: parse_endpoint(vector["in"]), None)
    ours = (parsed.protocol, parsed.address, None) if parsed else ("", "", problem)
    return (vector["proto"], vector["addr"], vector["err"]), ours


def described(cloud: Cloud | None, problem: str | None) -> tuple[object, ...]:
    """Return a cloud's fields as the vectors list them."""
    if cloud is None:
        return "", "", "", problem
    return cloud.name, cloud.authority, cloud.vault_suffix, problem


def cloud(vector: Vector) -> tuple[object, object]:
    """Find a public cloud."""
    expected = (vector["name"], vector["aad"], vector["kv_dns"], vector["err"])
    return expected, described(*attempt(lambda: public_cloud(vector["in"]), None))


def cloud_file(vector: Vector) -> tuple[object, object]:
    """Read a custom cloud."""
    expected = (vector["name"], vector["aad"], vector["kv_dns"], vector["err"])
    return expected, described(*attempt(lambda: parse_environment(vector["body"].encode()), None))


def mount_json_map(vector: Vector) -> tuple[object, object]:
    """Decode attributes."""
    decoded, problem = attempt(lambda: parse_attributes(vector["in"]), {})
    problem = problem and problem.removeprefix("failed to unmarshal attributes, error: ")
    expected = ({} if vector["err"] else vector["value"] or {}, vector["err"])
    return expected, (decoded, problem)


def mount_permission(vector: Vector) -> tuple[object, object]:
    """Decode a permission, signed as the answer carries it."""
    decoded, problem = attempt(lambda: parse_permission(vector["in"]), 0)
    problem = problem and problem.removeprefix("failed to unmarshal file permission, error: ")
    return (vector["as_int32"], vector["err"]), (decoded, problem)


CHECKS: Final[dict[str, Callable[[Vector], tuple[object, object]]]] = {
    "cloud": cloud,
    "cloud_file": cloud_file,
    "content_bytes": decoded_content,
    "endpoint": endpoint,
    "file_name": file_name,
    "file_permission": file_permission,
    "mount_json_map": mount_json_map,
    "mount_permission": mount_permission,
    "node_publish_secret": node_publish_secret,
    "object_encoding": object_encoding,
    "object_format": object_format,
    "object_uid": object_uid,
    "object_yaml": object_yaml,
    "objects_array": objects_array,
    "parse_bool": parse_bool,
    "tenant_id": tenant_id,
    "vault_name": vault_name,
}


@pytest.mark.parametrize("group", sorted(CHECKS))
def test_our_answers_are_the_reference_s(group: str) -> None:
    """Every vector of a group is matched, or differs as its table says."""
    table = DIFFERENCES.get(group, {})
    used: set[str] = set()
    for vector in VECTORS[group]:
        expected, ours = CHECKS[group](vector)
        key = str(vector.get(KEYS.get(group, "in")))
        if ours != expected:
            assert key in table, f"{group} {vector}: ours {ours}, reference {expected}"
            assert ours == table[key].ours, f"{group} {key!r}: {table[key].why}"
            used.add(key)
    assert used == set(table), f"{group}: no longer different"


def test_every_group_is_checked_or_announced() -> None:
    """No group of the file is forgotten."""
    assert set(CHECKS) | LATER == set(VECTORS)
    assert not set(CHECKS) & LATER


def test_every_difference_has_its_reason() -> None:
    """The table says why, and only about groups that are checked."""
    assert set(DIFFERENCES) <= set(CHECKS)
    assert all(trim_space(entry.why) for table in DIFFERENCES.values() for entry in table.values())

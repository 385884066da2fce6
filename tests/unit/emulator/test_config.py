"""The configuration file: what is refused, and with which words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from provider.emulator import ConfigInvalid, EmulatorConfig

if TYPE_CHECKING:
    from pathlib import Path


def example() -> dict[str, Any]:
    """Return a valid configuration as YAML's data."""
    return {
        "domain": "akv.test",
        "tenant": "tenant-1",
        "principals": {"app": {"client_id": "id-1", "client_secret": "password-1"}},
        "vaults": {"demo": {"access": {"app": ["get"]}, "secrets": {"a": "canary"}}},
    }


def put(content: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Set the value at a dotted path; None removes the key."""
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place.setdefault(key, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


def test_example_is_accepted() -> None:
    """The valid example parses, and no value shows in its repr."""
    config = EmulatorConfig.parse(yaml.safe_dump(example()))
    assert list(config.vaults) == ["demo"]
    assert "canary" not in repr(config)
    assert "password-1" not in repr(config.principals)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        pytest.param("tenant", None, "tenant", id="no-tenant"),
        pytest.param("tenant", "a b", "tenant: must have", id="tenant"),
        pytest.param("domain", "Akv.test", "domain: must be a lower-case", id="domain"),
        pytest.param("port", 1, "unknown field `port`", id="unknown-key"),
        pytest.param("token_lifetime", 0, "token_lifetime", id="lifetime"),
        pytest.param("principals.app.client_id", "", "client_id", id="empty-client-id"),
        pytest.param("principals.app.client_secret", None, "client_secret", id="no-secret"),
        pytest.param("principals.app.tenant", "/", "principals.app.tenant", id="own-tenant"),
        pytest.param(
            "principals.b", {"client_id": "ID-1", "client_secret": "x"}, "b.client_id", id="taken"
        ),
        pytest.param("vaults.a", {}, "vaults.a: must have 3 to 24", id="vault-name"),
        pytest.param("vaults.DEMO", {}, "differ in case only", id="vault-case"),
        pytest.param("vaults.demo.tenant", "a b", "vaults.demo.tenant", id="vault-tenant"),
        pytest.param("vaults.demo.access.b", ["get"], "access.b: must be a name", id="principal"),
        pytest.param("vaults.demo.access.app", ["fly"], "access.app: has fly", id="permission"),
        pytest.param("vaults.demo.secrets.a", 5, "secrets", id="number"),
        pytest.param("vaults.demo.secrets.a", {"text": "x"}, "secrets", id="secret-key"),
    ],
)
def test_wrong_configuration_is_named(path: str, value: object, text: str) -> None:
    """Each mutation of the example is refused with the place and what would be right."""
    with pytest.raises(ConfigInvalid) as caught:
        EmulatorConfig.parse(yaml.safe_dump(put(example(), path, value)))
    assert text in str(caught.value)
    assert "canary" not in str(caught.value)


def test_text_that_is_no_yaml_is_refused() -> None:
    """A broken file is a configuration error as well."""
    with pytest.raises(ConfigInvalid, match="file"):
        EmulatorConfig.parse("a: [")
    with pytest.raises(ConfigInvalid):
        EmulatorConfig.parse(b"\xff\xfe")


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file that cannot be read is named."""
    with pytest.raises(ConfigInvalid, match=r"nothing\.yaml: No such file"):
        EmulatorConfig.load(tmp_path / "nothing.yaml")

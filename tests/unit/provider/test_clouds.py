"""Clouds, and the files that describe custom ones."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from provider.azure.clouds import MAX_FILE, CloudDirectory, parse_environment, read_allowed, usable
from provider.errors import InvalidRequest
from provider.model import Cloud

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-f11e"
ENVIRONMENT = {
    "name": "Lab",
    "activeDirectoryEndpoint": "https://login.lab.test/",
    "keyVaultDNSSuffix": "vault.lab.test:8443",
}
REFUSED = "not a readable file in a directory that --cloud-files-dir allows"


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    """Return an allowed directory with one cloud file in it."""
    allowed = tmp_path / "clouds"
    allowed.mkdir()
    (allowed / "lab.json").write_text(json.dumps(ENVIRONMENT))
    return allowed


def refusal(path: Path | str, allowed: Path) -> str:
    """Return the error of a cloud file."""
    with pytest.raises(InvalidRequest) as caught:
        CloudDirectory(allowed=[str(allowed)]).resolve("AzureStackCloud", str(path))
    return str(caught.value)


def test_the_default_cloud_is_the_flags() -> None:
    """A class that names no cloud gets the one of --cloud-name."""
    assert CloudDirectory().resolve("", "").name == "AzurePublicCloud"
    china = CloudDirectory(default_name="azurechinacloud").resolve("", "")
    assert china.vault_suffix == "vault.azure.cn"


def test_an_unknown_cloud_is_named() -> None:
    """The reference's text, and which names there are."""
    with pytest.raises(InvalidRequest) as caught:
        CloudDirectory().resolve("AzureCloud1", "")
    assert caught.value.message == (
        "cloudName AzureCloud1 is not valid, error: autorest/azure: There is no cloud environment "
        'matching the name "AZURECLOUD1"'
    )
    assert "AzureStackCloud" in caught.value.remedy


def test_a_custom_cloud_is_read_from_its_file(clouds: Path) -> None:
    """The file says where Entra ID and the vaults are."""
    cloud = CloudDirectory(allowed=["/elsewhere", str(clouds)]).resolve(
        "azurestackcloud", str(clouds / "lab.json")
    )
    assert cloud == Cloud(
        name="Lab",
        authority="https://login.lab.test/",
        vault_suffix="vault.lab.test:8443",
        custom=True,
    )


def test_a_file_in_a_subdirectory_is_allowed(clouds: Path) -> None:
    """The whole tree below an allowed directory is."""
    (clouds / "a" / "b").mkdir(parents=True)
    (clouds / "a" / "b" / "c.json").write_text("{}")
    assert read_allowed(f"{clouds}/a/b/c.json", [str(clouds)]) == b"{}"


def test_a_custom_cloud_needs_a_file() -> None:
    """No process-wide variable stands in, which another tenant might have set."""
    with pytest.raises(InvalidRequest) as caught:
        CloudDirectory().resolve("AzureStackCloud", "")
    assert str(caught.value) == (
        "cloudName AzureStackCloud is not valid, error: open : no such file or directory; "
        "set the parameter cloudEnvFileName"
    )


@pytest.mark.parametrize(
    "name",
    [
        "missing.json",
        "link.json",
        "linked/lab.json",
        "../outside.json",
        "sub/../lab.json",
        "fifo",
        "sub",
        ".",
        "",
        "large.json",
        "nul\x00.json",
    ],
)
def test_other_files_are_refused_alike(clouds: Path, name: str) -> None:
    """Links, specials, large files and files elsewhere give one answer, so nothing is learnt."""
    outside = clouds.parent / "outside.json"
    outside.write_text(json.dumps(ENVIRONMENT))
    (clouds / "link.json").symlink_to(outside)
    (clouds / "sub").mkdir()
    (clouds / "linked").symlink_to(clouds, target_is_directory=True)
    os.mkfifo(clouds / "fifo")
    (clouds / "large.json").write_bytes(b" " * (MAX_FILE + 1))
    path = f"{clouds}/{name}"
    assert refusal(path, clouds) == (
        f"cloudName AzureStackCloud is not valid, error: open {path}: {REFUSED}; "
        "a regular file of at most 64 KiB, reached without links"
    )


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/no-such-file", "lab.json"])
def test_nothing_is_told_about_other_places(clouds: Path, path: str) -> None:
    """Whether a file exists outside the allowed directories cannot be asked."""
    assert REFUSED in refusal(path, clouds)


def test_a_neighbour_with_the_same_beginning_is_outside(clouds: Path) -> None:
    """`/a/clouds-2` is not below `/a/clouds`."""
    neighbour = clouds.with_name("clouds-2")
    neighbour.mkdir()
    (neighbour / "lab.json").write_text(json.dumps(ENVIRONMENT))
    assert REFUSED in refusal(neighbour / "lab.json", clouds)


@pytest.mark.parametrize(
    "body",
    [
        f"not json {CANARY}",
        f'["{CANARY}"]',
        f'"{CANARY}"',
        f'{{"name": ["{CANARY}"]}}',
        f'{{"keyVaultDNSSuffix": "{CANARY}/x", "activeDirectoryEndpoint": "https://l/"}}',
        f'{{"activeDirectoryEndpoint": "http://{CANARY}/"}}',
        f'{{"activeDirectoryEndpoint": "https://[{CANARY}"}}',
        "[" * 60_000,
        "\x00",
        "{}",
    ],
)
def test_a_useless_file_is_not_quoted(clouds: Path, body: str) -> None:
    """The provider reads as root: no error shows what a file holds."""
    (clouds / "bad.json").write_text(body)
    text = refusal(clouds / "bad.json", clouds)
    assert text.startswith("cloudName AzureStackCloud is not valid, error: ")
    assert CANARY not in text


@pytest.mark.parametrize(
    "authority",
    ["http://login/", "https://", "ftp://login/", "https://u:p@login/", "https://l/?q", "login"],
)
def test_an_authority_is_a_plain_https_url(authority: str) -> None:
    """A client secret is sent there."""
    with pytest.raises(InvalidRequest, match="activeDirectoryEndpoint in the file"):
        usable(Cloud(name="", authority=authority, vault_suffix="v"))


@pytest.mark.parametrize("suffix", ["", ".v", "v.", "v..w", "v/x", "v:p", "v@w", "v w", "v:1:2"])
def test_a_vault_suffix_is_a_domain(suffix: str) -> None:
    """Nothing in it can lead a request to another host."""
    with pytest.raises(InvalidRequest, match="keyVaultDNSSuffix in the file"):
        usable(Cloud(name="", authority="https://login/", vault_suffix=suffix))


def test_field_names_match_in_any_case() -> None:
    """As in Go, and null leaves a field alone."""
    cloud = parse_environment(b'{"NAME":"ci","KeyVaultDnsSuffix":"ci.example","name":null}')
    assert (cloud.name, cloud.vault_suffix, cloud.authority) == ("ci", "ci.example", "")

"""The Dockerfile, as far as it can be checked without building it."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import kubernetes.client

import csi.kube

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
LINES = [line for line in DOCKERFILE.splitlines() if not line.startswith("#")]
COMMANDS = re.sub(r"\\\n", " ", "\n".join(LINES)).splitlines()


def project_version() -> str:
    """Return the version in pyproject.toml."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def test_every_stage_starts_from_the_base() -> None:
    """One argument replaces the base of all stages, and no line names a network host."""
    stages = [line.split()[1] for line in COMMANDS if line.startswith("FROM")]
    assert stages == ["${BASE}", "${BASE}"]
    assert "://" not in "\n".join(COMMANDS)


def test_everything_installed_is_pinned() -> None:
    """What pip fetches has a hash; what has none comes from the files fetched before."""
    for line in COMMANDS:
        for call in re.findall(r"/pip .*?(?=&&|$)", line):
            if "uninstall" in call:
                continue
            fetches = "--requirement" in call
            pinned = "--require-hashes" if fetches else "--no-deps"
            assert pinned in call, call
            assert fetches or "--no-index" in call or call.rstrip().endswith("/src"), call


def test_image_has_the_project_version() -> None:
    """The label's default is moved with the project."""
    assert f"ARG VERSION={project_version()}" in COMMANDS


def test_copied_files_are_in_the_context() -> None:
    """What the Dockerfile copies exists, and its ignore file lets it through."""
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copies = [line.split()[1:-1] for line in COMMANDS if line.startswith("COPY")]
    sources = {name for names in copies for name in names if not name.startswith(("--", "/"))}
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, source


def test_image_has_what_is_used_of_the_client() -> None:
    """csi.kube, which alone may, uses no name from the parts that the image leaves out."""
    [removed] = re.findall(r"site-packages/kubernetes +&& rm -r (.*)", "\n".join(COMMANDS))
    gone = tuple(f"kubernetes.{path.replace('/', '.')}." for path in removed.split())
    assert len(gone) > 1
    tree = ast.parse(Path(csi.kube.__file__).read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "official"
    }
    assert "ApiClient" in used
    homes = {name: f"{getattr(kubernetes.client, name).__module__}." for name in used}
    assert [name for name, home in homes.items() if home.startswith(gone)] == []
    assert kubernetes.client.CoreV1Api.__module__.startswith(gone)  # what would be noticed

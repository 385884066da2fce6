"""The chart's files against the programs, without helm; tests/cluster/test_chart.py renders it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import csi.config
import fusefs.__main__
import provider.__main__
from fusefs.config import MAX_VOLUMES, Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "chart"
TEMPLATES = sorted((CHART / "templates").glob("*.yaml"))
HELPERS = (CHART / "templates" / "_helpers.tpl").read_text()
PROGRAMS: dict[str, click.Command] = {
    "keeper": fusefs.__main__.main,
    "node": csi.config.command,
    "provider": provider.__main__.main,
}
# What a container is allowed, or may reach of its node.
RISKS = re.compile(
    r"^(privileged: true|host(PID|IPC|Network): true|hostPath:|hostPort:.*|runAsUser: 0"
    r"|allowPrivilegeEscalation: true|add:|procMount:.*|mountPropagation: Bidirectional)$"
)
OF_THE_KEEPER_ALONE = ("privileged: true", "hostPID: true", "mountPropagation: Bidirectional")


def helper(name: str) -> str:
    """Return the text of a helper that is plain text."""
    found = re.search(rf'{{{{- define "akvfs\.{name}" -}}}}([^{{]*){{{{- end }}}}', HELPERS)
    assert found, name
    return found[1]


def risks(template: Path) -> Iterator[tuple[str, str]]:
    """Yield each risky line of a template with the comment above it."""
    comment = ""
    for raw in template.read_text().splitlines():
        line = raw.strip()
        if line.startswith("#"):
            comment += line
            continue
        if RISKS.match(line):
            yield line, comment
        comment = ""


def flags(template: str) -> list[str]:
    """Return the flags that a template passes to its program."""
    text = (CHART / "templates" / f"{template}.yaml").read_text()
    [args] = re.findall(r"^ +args:\n((?: {12}.*\n)+)", text, re.MULTILINE)
    return re.findall(r"^ +- (--[a-z-]+)", args, re.MULTILINE)


def test_each_privilege_says_why() -> None:
    """A comment with "because" stands above every line that allows a container something."""
    found = [(path.name, *risk) for path in TEMPLATES for risk in risks(path)]
    assert len(found) > len(OF_THE_KEEPER_ALONE)
    assert [(name, line) for name, line, comment in found if "because" not in comment] == []


def test_only_the_keeper_is_privileged() -> None:
    """Nobody else may mount, and nobody at all shares the network or the IPC of the node."""
    found = [(path.stem, line) for path in TEMPLATES for line, _ in risks(path)]
    assert {stem for stem, line in found if line in OF_THE_KEEPER_ALONE} == {"keeper"}
    assert all(("keeper", line) in found for line in OF_THE_KEEPER_ALONE)
    assert not [line for _, line in found if re.match(r"hostNetwork|hostIPC|hostPort|add:", line)]


@pytest.mark.parametrize("template", sorted(PROGRAMS))
def test_flags_are_the_programs_own(template: str) -> None:
    """No template passes a flag that its program does not have, or passes one twice."""
    known = {name for option in PROGRAMS[template].params for name in option.opts}
    passed = flags(template)
    assert passed
    assert len(passed) == len(set(passed))
    assert set(passed) <= known


def test_driver_name_is_the_programs_default() -> None:
    """Chart, node server and keeper agree on the name that kubelet writes beside a target."""
    [option] = [one for one in csi.config.command.params if one.name == "drivername"]
    keeper = Config(socket="", kubelet_root="")
    assert helper("driver") == keeper.driver == option.default


def test_interpreter_is_the_images() -> None:
    """The chart starts the programs with the interpreter that the Dockerfile installs."""
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert f'ENTRYPOINT ["{helper("python")}", "-m"]' in dockerfile


def test_uid_base_is_the_keepers_default() -> None:
    """Who does not set it gets the uids that the documents name."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["keeper"]["workerUidBase"] == Config(socket="", kubelet_root="").worker_uid_base
    assert f"up to {MAX_VOLUMES} of them" in (CHART / "values.yaml").read_text()


def test_chart_has_the_project_version() -> None:
    """Node server and provider come with the chart of their version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == project

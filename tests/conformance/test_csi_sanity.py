"""csi-sanity, the conformance suite of the CSI project, against the whole node.

Keeper, node server and kernel are real, and so is the CSI socket; the provider is a fake that
speaks gRPC. Between suite and socket is a relay that plays kubelet (`fakes.relay`). The suite is
built from its Go module, pinned by `sanity/go.sum`; Go's own caches make the next build quick.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import attrs
import pytest
import yaml

from csi._pb import csi_pb2
from fakes.relay import Relay, relaying
from harness.node import CALL_TIMEOUT_S, Node, running_node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SANITY: Final = Path(__file__).parent / "sanity"
SUITE: Final = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
BUILD_TIMEOUT_S: Final = 400  # the first build fetches and compiles; half a minute on two cores
RUN_TIMEOUT_S: Final = 120  # it takes half a second
SKIPPED: Final = frozenset({"pending", "skipped"})

pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S + RUN_TIMEOUT_S)


@attrs.frozen(kw_only=True)
class Run:
    """What a run of the suite left.

    Attributes:
        outcomes: How each spec ended: passed, failed, skipped or pending.
    """

    output: str
    exit_code: int
    outcomes: Mapping[str, str]
    relay: Relay
    node: Node


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """Build the suite and provide the program."""
    program = tmp_path_factory.mktemp("csi-sanity") / "csi-sanity"
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line("building csi-sanity, about a minute the first time")
    done = subprocess.run(
        ["go", "build", "-buildvcs=false", "-trimpath", "-mod=readonly", "-o", str(program), SUITE],
        cwd=SANITY,
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def run(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run the suite once; the node stays up for questions."""
    directory = tmp_path_factory.mktemp("akvfs")
    with (
        running_node(directory) as node,
        relaying(directory / "relay.sock", node.channel) as relay,
    ):
        volumes = node.kubelet.path / "pods" / str(uuid.uuid4()) / "volumes/kubernetes.io~csi"
        volumes.mkdir(parents=True)
        report = directory / "report.xml"
        done = subprocess.run(
            [
                str(suite),
                f"--csi.endpoint=unix://{directory / 'relay.sock'}",
                f"--csi.mountdir={volumes / 'secrets'}",
                f"--csi.stagingdir={directory / 'staging'}",
                f"--csi.checkpathcmd={SANITY / 'check-path'}",
                f"--csi.secrets={SANITY / 'secrets.yaml'}",
                f"--csi.testvolumeparameters={SANITY / 'parameters.yaml'}",
                f"--ginkgo.junit-report={report}",
                "--ginkgo.no-color",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_TIMEOUT_S,
        )
        yield Run(
            output=done.stdout + done.stderr + node.server.log,
            exit_code=done.returncode,
            outcomes=outcomes_in(report),
            relay=relay,
            node=node,
        )


def outcomes_in(report: Path) -> dict[str, str]:
    """Return how each spec of a JUnit report of ginkgo ended."""
    cases = ET.parse(report).iter("testcase")  # noqa: S314 - written by the suite just now
    return {
        case.attrib["name"].removeprefix("[It] "): case.attrib["status"]
        for case in cases
        if case.attrib["name"].startswith("[It] ")
    }


def advertised(node: Node) -> set[str]:
    """Return every capability that the driver names on its own socket."""
    plugin = node.identity.GetPluginCapabilities(
        csi_pb2.GetPluginCapabilitiesRequest(), timeout=CALL_TIMEOUT_S
    )
    controller = node.controller.ControllerGetCapabilities(
        csi_pb2.ControllerGetCapabilitiesRequest(), timeout=CALL_TIMEOUT_S
    )
    calls = node.calls.NodeGetCapabilities(
        csi_pb2.NodeGetCapabilitiesRequest(), timeout=CALL_TIMEOUT_S
    )
    of_plugin = csi_pb2.PluginCapability.Service.Type
    of_controller = csi_pb2.ControllerServiceCapability.RPC.Type
    of_node = csi_pb2.NodeServiceCapability.RPC.Type
    return {
        *(f"Plugin {of_plugin.Name(each.service.type)}" for each in plugin.capabilities),
        *(f"Controller {of_controller.Name(each.rpc.type)}" for each in controller.capabilities),
        *(f"Node {of_node.Name(each.rpc.type)}" for each in calls.capabilities),
    }


def test_every_spec_that_runs_passes(run: Run) -> None:
    """No spec fails, and those of the calls that kubelet makes are among them."""
    failed = [name for name, outcome in run.outcomes.items() if outcome not in SKIPPED | {"passed"}]
    assert (run.exit_code, failed) == (0, []), run.output
    passed = [name for name, outcome in run.outcomes.items() if outcome == "passed"]
    assert {
        "Node Service NodeUnpublishVolume should remove target path",
        "Node Service should be idempotent",
        "Node Service should work",
    } <= set(passed)
    assert len(passed) == len(run.outcomes) - len(skipped_by_list())


def test_only_specs_in_the_list_skip(run: Run) -> None:
    """The skipped specs are the listed ones, neither more nor fewer."""
    skipped = [name for name, outcome in run.outcomes.items() if outcome in SKIPPED]
    assert sorted(skipped) == sorted(skipped_by_list())


def test_listed_capabilities_are_not_ours(run: Run) -> None:
    """Each skip is owed to a capability that the driver does not name on its own socket."""
    capabilities = advertised(run.node)
    assert capabilities == {
        "Plugin CONTROLLER_SERVICE",
        "Controller UNKNOWN",
        "Node VOLUME_MOUNT_GROUP",
    }
    assert not capabilities & set(listed())


def test_kubelet_finds_what_was_answered(run: Run) -> None:
    """After each OK the target is one read-only mount, or gone; after a refusal it is not there."""
    published = [call for call in run.relay.calls if call.published]
    assert published
    for call in published:
        (mount,) = call.mounts
        assert mount.is_ours
        assert "ro" in mount.options
    others = [call for call in run.relay.calls if not call.published]
    assert [call for call in others if call.mounts] == []
    assert run.node.kubelet.mounts() == []
    assert run.node.keeper_volumes() == []


def test_provider_is_asked_once_a_volume(run: Run) -> None:
    """A repeated publish asks nobody, and the pod's secrets reach the provider."""
    targets = [request.target_path for request in run.node.provider.requests]
    assert len(targets) == 3  # three specs publish, one of them ten times
    wanted = yaml.safe_load((SANITY / "secrets.yaml").read_text())["NodePublishVolumeSecret"]
    for request in run.node.provider.requests:
        assert json.loads(request.secrets) == wanted


def listed() -> dict[str, Sequence[str]]:
    """Return the committed list: capability to specs."""
    specs: dict[str, Sequence[str]] = yaml.safe_load((SANITY / "skipped.yaml").read_text())
    return specs


def skipped_by_list() -> list[str]:
    """Return the listed specs."""
    return [name for names in listed().values() for name in names]

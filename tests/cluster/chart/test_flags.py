"""The command lines of the chart, read by the programs that get them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
import pytest

import csi.config
import fusefs.__main__
import provider.__main__
from cluster.chart.rendering import CLOUD, KEEPER, NODE, PROVIDER, container_of, template_of
from csi.options import FILESYSTEMS
from fusefs.config import budget_of_volumes
from fusefs.filesystems import WORKER_BYTES

if TYPE_CHECKING:
    from cluster.chart.rendering import Helm

PROGRAMS: Final[dict[str, click.Command]] = {
    KEEPER: fusefs.__main__.main,
    NODE: csi.config.command,
    PROVIDER: provider.__main__.main,
}
MEMORY_LIMIT: Final = 512 << 20  # as Kubernetes would write what the chart's default is
MODULES: Final = {KEEPER: "fusefs", NODE: "csi", PROVIDER: "provider"}
EVERYTHING: Final = {
    "enableSecretRotation": True,
    "rotationPollInterval": "1h30m",
    "classChangeSpread": "0s",
    "provider": {"cloudFiles": {"lab.json": CLOUD}},
}
LESS: Final = {
    "linux": {"additionalProvidersDirs": [], "metricsAddr": "0"},
    "keeper": {"passwdFile": ""},
}


def read(daemonset: str, arguments: list[str]) -> dict[str, Any]:
    """Return what a program makes of its arguments; click fails where the program would."""
    expanded = [one.replace("$(MEMORY_LIMIT)", str(MEMORY_LIMIT)) for one in arguments]
    with PROGRAMS[daemonset].make_context(daemonset, expanded) as context:
        return context.params


@pytest.mark.parametrize("values", [{}, EVERYTHING, LESS], ids=["default", "everything", "less"])
@pytest.mark.parametrize("daemonset", sorted(PROGRAMS))
def test_programs_take_their_command_lines(
    helm: Helm, daemonset: str, values: dict[str, object]
) -> None:
    """No flag is unknown, missing, or has an impossible value; the module is the program's."""
    container = container_of(helm.render(values), daemonset)
    assert container["command"] == ["/opt/akvfs/bin/python", "-m", MODULES[daemonset]]
    read(daemonset, container["args"])


@pytest.mark.parametrize("daemonset", sorted(PROGRAMS))
def test_wrong_command_lines_are_noticed(helm: Helm, daemonset: str) -> None:
    """What the test above relies on: an unknown flag or a missing one is not taken."""
    arguments = container_of(helm.render(), daemonset)["args"]
    with pytest.raises(click.NoSuchOption):
        read(daemonset, [*arguments, "--no-such-flag"])
    required = {one.opts[0] for one in PROGRAMS[daemonset].params if one.required}
    for flag in required:
        others = [one for one in arguments if not one.startswith(f"{flag}=")]
        with pytest.raises(click.MissingParameter):
            read(daemonset, others)


def test_values_reach_the_node_server(helm: Helm) -> None:
    """Rotation, its interval and the largest reply are what the values say."""
    values = {**EVERYTHING, "maxCallRecvMsgSize": 12_345_678, "logLevel": "debug"}
    options = read(NODE, container_of(helm.render(values), NODE)["args"])
    assert options["enable_secret_rotation"] is True
    assert options["rotation_poll_interval"] == 5400
    assert options["class_change_spread"] == 0
    assert options["max_call_recv_msg_size"] == 12_345_678
    assert options["log_level"] == "debug"
    assert options["nodeid"] == "$(KUBE_NODE_NAME)"


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_filesystem_reaches_the_node_server(helm: Helm, filesystem: str) -> None:
    """Whatever volumes may be, the chart can say it."""
    values = {"linux": {"filesystem": filesystem}}
    options = read(NODE, container_of(helm.render(values), NODE)["args"])
    assert options["filesystem"] == filesystem


def test_keeper_knows_its_memory_limit(helm: Helm) -> None:
    """It is told what its container may have, so that volumes stay below it."""
    container = container_of(helm.render(), KEEPER)
    [limit] = [one["valueFrom"] for one in container["env"] if one["name"] == "MEMORY_LIMIT"]
    assert limit == {"resourceFieldRef": {"resource": "limits.memory"}}
    assert read(KEEPER, container["args"])["memory_limit"] == MEMORY_LIMIT


def test_keeper_is_left_time_to_freeze(helm: Helm) -> None:
    """Killed later than after its wait for a successor and a freeze of all volumes that fit."""
    objects = helm.render()
    patience = read(KEEPER, container_of(objects, KEEPER)["args"])["successor_patience"]
    budget = budget_of_volumes(MEMORY_LIMIT)
    assert budget is not None
    freeze = 2.0 + 0.1 * budget / WORKER_BYTES
    assert template_of(objects, KEEPER)["spec"]["terminationGracePeriodSeconds"] > patience + freeze


def test_programs_meet_at_the_same_paths(helm: Helm) -> None:
    """Node server and keeper name one control socket, one kubelet and one driver."""
    objects = helm.render({"linux": {"kubeletRootDir": "/data/kubelet"}})
    node = read(NODE, container_of(objects, NODE)["args"])
    keeper = read(KEEPER, container_of(objects, KEEPER)["args"])
    assert str(node["keeper_socket"]) == keeper["socket"]
    assert node["kubelet_root"] == keeper["kubelet_root"] == "/data/kubelet"
    assert node["drivername"] == keeper["driver_name"]
    assert keeper["supervise"] is True

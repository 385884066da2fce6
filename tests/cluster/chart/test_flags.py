"""The command lines of the chart, read by the programs that get them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
import pytest

import csi.config
import fusefs.__main__
import provider.__main__
from cluster.chart.rendering import CLOUD, KEEPER, NODE, PROVIDER, container_of

if TYPE_CHECKING:
    from cluster.chart.rendering import Helm

PROGRAMS: Final[dict[str, click.Command]] = {
    KEEPER: fusefs.__main__.main,
    NODE: csi.config.command,
    PROVIDER: provider.__main__.main,
}
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
    with PROGRAMS[daemonset].make_context(daemonset, list(arguments)) as context:
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


def test_programs_meet_at_the_same_paths(helm: Helm) -> None:
    """Node server and keeper name one control socket, one kubelet and one driver."""
    objects = helm.render({"linux": {"kubeletRootDir": "/data/kubelet"}})
    node = read(NODE, container_of(objects, NODE)["args"])
    keeper = read(KEEPER, container_of(objects, KEEPER)["args"])
    assert str(node["keeper_socket"]) == keeper["socket"]
    assert node["kubelet_root"] == keeper["kubelet_root"] == "/data/kubelet"
    assert node["drivername"] == keeper["driver_name"]
    assert keeper["supervise"] is True

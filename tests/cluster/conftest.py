"""The node of the scenarios: made before the first test, one for all of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from cluster import images, remains, table
from cluster.addresses import NEXT_DRIVER_IMAGE
from cluster.driver import Driver
from cluster.material import Material, material
from cluster.node import node
from cluster.vault import vault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _pytest.terminal import TerminalReporter

    from cluster.cluster import Cluster

HERE: Final = Path(__file__).parent
TIMEOUT_S: Final = 300
LOGS: Final = pytest.StashKey[Path]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every scenario the time that a busy machine may take."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S), append=False)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make what a node needs now, where no test's time runs and progress is seen."""
    wanted = any(item.path.is_relative_to(HERE) for item in session.items)
    if not wanted or session.config.option.collectonly or os.geteuid() != 0:
        return
    capture = session.config.pluginmanager.get_plugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        material()
        fixtures = {name for item in session.items for name in getattr(item, "fixturenames", ())}
        if "session_driver" in fixtures:
            images.driver()
        if "next_image" in fixtures:
            images.next_driver()


def pytest_terminal_summary(
    terminalreporter: TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Print the table of scenarios, and say where the node's logs are if a test failed."""
    reports = (
        each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, [])
    )
    terminalreporter.write(table.lines(reports))
    if exitstatus and LOGS in config.stash:
        terminalreporter.write_line(f"logs of the node: {config.stash[LOGS]}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide the folder of the session's node."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="session")
def host(folder: Path) -> remains.Host:
    """Provide how the machine was before the session's node."""
    return remains.look(folder)


@pytest.fixture(scope="session")
def made() -> Material:
    """Provide what nodes are made of."""
    return material()


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """Provide the folder of the logs of the session's node, which is named if a test fails."""
    path = tmp_path_factory.mktemp("log")
    pytestconfig.stash[LOGS] = path
    return path


@pytest.fixture(scope="session")
def session_cluster(
    folder: Path, logs: Path, host: remains.Host, made: Material
) -> Iterator[Cluster]:
    """Provide the node of the session; when it has ended, the machine is as it was before."""
    with node(folder, logs=logs, material=made) as running:
        guard = running.node.machine.guard_pid
        yield running
    assert remains.look(folder) == host
    assert remains.cgroups_of(guard) == []
    assert not folder.exists()


@pytest.fixture
def cluster(session_cluster: Cluster) -> Cluster:
    """Provide the node; after a test that broke it, the next one says so at once."""
    assert session_cluster.node.broken() == [], "a test before this one has broken the node"
    return session_cluster


@pytest.fixture(scope="session")
def session_driver(
    session_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driver]:
    """Provide the driver, installed once; it ends with the node."""
    folder = tmp_path_factory.mktemp("driver")
    session_cluster.node.import_image(images.driver())
    with vault(session_cluster.node, folder / "vault") as its_vault:
        installed = Driver(cluster=session_cluster, vault=its_vault, folder=folder)
        installed.install()
        yield installed


@pytest.fixture
def driver(cluster: Cluster, session_driver: Driver) -> Iterator[Driver]:
    """Provide the driver when it is ready, since a test before this one may have replaced it.

    The test's pods in the default namespace go with the test, even one that failed.
    """
    assert cluster is session_driver.cluster
    session_driver.wait_until_ready()
    yield session_driver
    cluster.kubectl("delete", "pod", "--all")


@pytest.fixture(scope="session")
def next_image(session_cluster: Cluster) -> str:
    """Provide the name of the image of the next release, which the node has."""
    session_cluster.node.import_image(images.next_driver())
    return NEXT_DRIVER_IMAGE


@pytest.fixture
def row(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> table.Row:
    """Provide the test's row in the table of scenarios."""
    name: str = request.node.name
    record_property(table.SCENARIO, name.removeprefix("test_").replace("_", " "))
    return table.Row(record_property)

"""Fixtures of the chaos tier, and the table that it ends with."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Final

import pytest

from harness.fixtures import client, keeper, keeper_command, keeper_socket, kubelet, takeover
from harness.outcomes import Outcome, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from _pytest.terminal import TerminalReporter

__all__ = ["client", "keeper", "keeper_command", "keeper_socket", "kubelet", "takeover"]
OUTCOMES: Final = pytest.StashKey[list[Outcome]]()
LOAD_BEFORE: Final = pytest.StashKey[float]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin the table."""
    config.stash[OUTCOMES] = []
    config.stash[LOAD_BEFORE] = os.getloadavg()[0]


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    terminalreporter.section("what failures cost")
    outcomes = config.stash[OUTCOMES]
    terminalreporter.write_line(table(outcomes))
    terminalreporter.write_line(
        f"Linux {platform.release()}, {os.cpu_count()} processors, load before "
        f"{config.stash[LOAD_BEFORE]:.1f}"
    )


@pytest.fixture
def enter(pytestconfig: pytest.Config) -> Callable[[Outcome], None]:
    """Put a line into the table."""
    return pytestconfig.stash[OUTCOMES].append

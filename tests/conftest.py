"""Hypothesis profiles, tiers by folder, and the checks that end the session.

A tier is a folder under `tests/`. Those that need root and FUSE are skipped, with the reason, where
the machine cannot run them; with CI set, a skipped test fails the session, and so does anything
that the tests left behind.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import hypothesis
import pytest

import leftovers

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

TESTS: Final = Path(__file__).parent
PRIVILEGED_TIERS: Final = ("chaos", "cluster", "conformance", "mounted", "process", "soak")
STATEFUL_TIMEOUT_S: Final = 300  # many short runs make one test
PURE_TIERS: Final = {"unit": 60, "stateful": 400}  # seconds for one test

# Before grpc is imported: some tests fork, and their children use no gRPC.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

hypothesis.settings.register_profile("dev", max_examples=50, stateful_step_count=30, deadline=None)
hypothesis.settings.register_profile(
    "ci", max_examples=200, stateful_step_count=50, deadline=None, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


class SessionChecks:
    """Turns skipped tests under CI and leftovers of any session into errors of the session."""

    def __init__(self) -> None:
        self.marker = leftovers.mark_environment()
        self.mounts = leftovers.mounts_of_ours(
            Path("/proc/self/mountinfo").read_text(encoding="utf-8")
        )
        self.skipped: list[str] = []
        self.problems: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what was skipped."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look for leftovers once every fixture is torn down."""
        if hasattr(session.config, "workerinput") or session.config.option.collectonly:
            return
        if os.environ.get("CI"):
            self.problems += [f"skipped under CI: {nodeid}" for nodeid in self.skipped]
        self.problems += leftovers.left_mounts(self.mounts)
        self.problems += leftovers.left_processes(self.marker) or leftovers.left_children()
        self.problems += leftovers.left_threads()
        if self.problems and session.exitstatus in {pytest.ExitCode.OK, 0}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Print the problems and count them in the closing line."""
        if not self.problems:
            return
        terminalreporter.section("session checks", red=True)
        for problem in self.problems:
            terminalreporter.write_line(problem)
            terminalreporter.stats.setdefault("error", []).append(
                pytest.CollectReport(
                    nodeid="session", outcome="failed", longrepr=problem, result=None
                )
            )


def pytest_configure(config: pytest.Config) -> None:
    """Register the session checks."""
    config.pluginmanager.register(SessionChecks(), "akvfs-session-checks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, and skip what this machine cannot run, saying why."""
    lacking = lacking_privilege()
    for item in items:
        tier = tier_of(item.path)
        if tier is None:
            continue
        item.add_marker(tier)
        if tier == "stateful":
            item.add_marker(pytest.mark.timeout(STATEFUL_TIMEOUT_S))
        if tier in PURE_TIERS and item.get_closest_marker("timeout") is None:
            # Nothing here can hang in the kernel, so one slow test need not end the session; a
            # machine that found an error takes minutes to shrink it.
            item.add_marker(pytest.mark.timeout(PURE_TIERS[tier], method="signal"))
        if lacking and tier in PRIVILEGED_TIERS:
            item.add_marker(pytest.mark.skip(reason=f"the {tier} tier needs {lacking}"))


def tier_of(path: Path) -> str | None:
    """Return the folder under `tests/` that a test file lies in."""
    relative = path.relative_to(TESTS)
    return relative.parts[0] if len(relative.parts) > 1 else None


def lacking_privilege() -> str | None:
    """Return what this machine lacks for real mounts, or None."""
    if os.geteuid() != 0:
        return "root, to mount filesystems (run: sudo make test)"
    if not Path("/dev/fuse").exists():
        return "/dev/fuse (run: modprobe fuse)"
    return None

"""Helm, for tests that need no node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.chart.rendering import Helm

if TYPE_CHECKING:
    from cluster.material import Material


@pytest.fixture(scope="session")
def helm(made: Material) -> Helm:
    """Provide helm."""
    return Helm(made.programs / "helm")

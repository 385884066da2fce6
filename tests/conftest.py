"""Hypothesis profiles, tier markers and the checks that end the session."""

from __future__ import annotations

import os

import hypothesis

hypothesis.settings.register_profile("dev", max_examples=50, stateful_step_count=30, deadline=None)
hypothesis.settings.register_profile(
    "ci", max_examples=300, stateful_step_count=50, deadline=None, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

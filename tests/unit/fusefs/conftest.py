"""Noise is failure: what these tests leave open or log without having said so fails them."""

from __future__ import annotations

import gc
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def open_descriptors() -> set[str]:
    """Return the open descriptors of this process and what they are."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{link.name} {link.readlink()}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


def unannounced(records: Iterable[logging.LogRecord], patterns: Iterable[str]) -> list[str]:
    """Return the warnings and errors among `records` that no pattern announces."""
    messages = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
    return [message for message in messages if not any(re.search(one, message) for one in patterns)]


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    """Fail a test after which more descriptors are open than before."""
    before = open_descriptors()
    yield
    if open_descriptors() - before:
        gc.collect()  # what only a traceback held
    assert open_descriptors() - before == set()


@pytest.fixture(autouse=True)
def announced(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Take patterns of expected log messages; any other warning or error fails the test."""
    patterns: list[str] = []
    yield patterns
    assert unannounced(caplog.get_records("call"), patterns) == []
    messages = [record.getMessage() for record in caplog.get_records("call")]
    unused = [one for one in patterns if not any(re.search(one, text) for text in messages)]
    assert unused == [], "announced, and never logged"

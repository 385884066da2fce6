"""The file that is there while the provider serves, for who asks without starting a program."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from provider.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def withdraw(path: Path | None) -> None:
    """Remove the file, also one that a killed process has left.

    Raises:
        InvalidRequest: it cannot be removed.
    """
    if path is not None:
        with _told(path):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def shown(path: Path | None) -> Iterator[None]:
    """Have the file there while the block runs.

    Raises:
        InvalidRequest: it cannot be made.
    """
    if path is not None:
        with _told(path):
            path.touch(mode=0o600)
    try:
        yield
    finally:
        withdraw(path)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"--ready-file {path}: {error.strerror}"
        raise InvalidRequest(message, remedy="give a file in a writable directory") from error

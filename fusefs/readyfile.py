"""The file that is there while the keeper serves, for who asks without starting a program."""

import contextlib
import os
from collections.abc import Iterator

from fusefs.errors import CannotStart


def withdraw(path: str | None) -> None:
    """Remove the file, also one that a killed process has left.

    Raises:
        CannotStart: It cannot be removed.
    """
    with _told(path), contextlib.suppress(FileNotFoundError):
        if path is not None:
            os.unlink(path)


@contextlib.contextmanager
def shown(path: str | None) -> Iterator[None]:
    """Have the file there while the block runs.

    Raises:
        CannotStart: It cannot be made.
    """
    with _told(path):
        if path is not None:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        yield
    finally:
        withdraw(path)


@contextlib.contextmanager
def _told(path: str | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"--ready-file {path}: {error.strerror}; give a file in a writable directory"
        raise CannotStart(message) from error

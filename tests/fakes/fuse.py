"""The kernel's part in calling FUSE handlers, without a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import pyfuse3

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def answer(handler: Coroutine[Any, Any, T]) -> T:
    """Run a handler to its end; it must not wait for anything on the way."""
    try:
        handler.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    handler.close()
    message = "a handler waited; one task serves all requests of a volume"
    raise AssertionError(message)


def errno_of(handler: Coroutine[Any, Any, object]) -> int:
    """Run a handler that must fail, and return the errno that the caller gets."""
    try:
        result = answer(handler)
    except pyfuse3.FUSEError as error:
        number: int = error.errno
        return number
    message = f"the handler answered {result!r}"
    raise AssertionError(message)

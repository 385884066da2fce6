"""The boundary of every FUSE handler: one table from exceptions to errno.

Nothing but `pyfuse3.FUSEError` may leave a handler: anything else ends pyfuse3's main loop, and
with it every file of the volume. What the table does not know is a defect: logged, EIO, and the
loop lives.
"""

import errno
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, ParamSpec, TypeVar

import pyfuse3

from fusefs import errors

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

ERRNOS: Final[dict[type[errors.NodeError], int]] = {
    errors.NoSuchName: errno.ENOENT,
    errors.NoSuchAttribute: errno.ENODATA,
    errors.StaleGeneration: errno.ESTALE,
    errors.ReadOnlyVolume: errno.EROFS,
    errors.NotADirectoryNode: errno.ENOTDIR,
}


def errno_of(error: Exception) -> int:
    """Return the errno that stands for `error`, most specific class first; EIO for the unknown."""
    for kind in type(error).__mro__:
        if kind in ERRNOS:
            return ERRNOS[kind]
    return errno.EIO


def handler(function: Callable[P, Awaitable[R]]) -> Callable[P, Any]:
    """Wrap a handler so that only `pyfuse3.FUSEError` and cancellation leave it."""

    @functools.wraps(function)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await function(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except errors.NodeError as error:
            raise pyfuse3.FUSEError(errno_of(error)) from None
        except Exception:  # the boundary: see the module docstring
            log.exception(
                "a handler failed; the caller gets EIO", extra={"handler": function.__name__}
            )
            raise pyfuse3.FUSEError(errno.EIO) from None

    return wrapped


def no_reply(function: Callable[P, Awaitable[None]]) -> Callable[P, Any]:
    """Wrap a handler that answers nobody (forget, release): a failure is logged, never raised."""

    @functools.wraps(function)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await function(*args, **kwargs)
        except Exception:  # the boundary: see the module docstring
            log.exception("a handler without reply failed", extra={"handler": function.__name__})

    return wrapped

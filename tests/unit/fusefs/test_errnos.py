"""The boundary of the handlers: every error has a number, and nothing else leaves."""

from __future__ import annotations

import errno
import inspect

import pyfuse3
import pytest
import trio

from fakes.fuse import answer, errno_of
from fusefs import errors
from fusefs.errnos import ERRNOS, handler, no_reply
from fusefs.errnos import errno_of as number_of
from fusefs.operations import VolumeOperations

NODE_ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.NodeError) and kind is not errors.NodeError
]


class NarrowerError(errors.StaleGeneration):
    """An error that a later change may derive from one of ours."""


@handler
async def failing(error: BaseException) -> None:
    """Fail as a handler may."""
    raise error


@no_reply
async def failing_silently(error: BaseException) -> None:
    """Fail where nobody waits for an answer."""
    raise error


def incomplete(table: dict[type[errors.NodeError], int]) -> list[type[errors.NodeError]]:
    """Return the errors that `table` has no row for."""
    return [kind for kind in NODE_ERRORS if kind not in table]


def test_table_has_a_row_for_every_error() -> None:
    """No error of the tree falls through to EIO, and no row is for anything else."""
    assert incomplete(ERRNOS) == []
    assert set(ERRNOS) == set(NODE_ERRORS)


@pytest.mark.parametrize("kind", NODE_ERRORS)
def test_each_missing_row_is_found(kind: type[errors.NodeError]) -> None:
    """The test above fails when any row is taken away."""
    assert incomplete({one: number for one, number in ERRNOS.items() if one is not kind}) == [kind]


@pytest.mark.parametrize("kind", NODE_ERRORS)
def test_each_error_becomes_its_errno(kind: type[errors.NodeError]) -> None:
    """The caller gets the number in the table, and the log stays silent."""
    assert errno_of(failing(kind())) == ERRNOS[kind]


def test_errors_have_different_errnos() -> None:
    """Whoever reads an errno can tell what it was."""
    assert len(set(ERRNOS.values())) == len(ERRNOS)
    assert errno.EIO not in ERRNOS.values()


def test_unknown_errors_are_eio() -> None:
    """What has no row is a defect, whatever it is."""
    assert number_of(KeyError("a")) == number_of(errors.InvalidTree("a", "b")) == errno.EIO


def test_derived_errors_share_a_row() -> None:
    """The most specific class with a row decides."""
    assert number_of(NarrowerError()) == errno.ESTALE
    assert errno_of(failing(NarrowerError())) == errno.ESTALE


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a"),
        StopIteration(),
        OSError(errno.ENOENT, "x"),
        ExceptionGroup("g", [KeyError()]),
    ],
)
def test_defects_become_eio_and_are_logged(error: Exception, announced: list[str]) -> None:
    """An exception that nobody expected is an EIO with a traceback in the log."""
    announced.append("a handler failed; the caller gets EIO")
    assert errno_of(failing(error)) == errno.EIO


def test_errnos_of_handlers_pass_unchanged() -> None:
    """A handler that names an errno itself is not second-guessed."""
    assert errno_of(failing(pyfuse3.FUSEError(errno.ENOSYS))) == errno.ENOSYS


async def test_cancellation_passes_the_boundary() -> None:
    """A worker that is told to end is not held up by its handlers."""

    @handler
    async def waiting() -> None:
        await trio.sleep_forever()

    with trio.move_on_after(0) as scope:
        await waiting()
    assert scope.cancelled_caught


@pytest.mark.parametrize("error", [KeyError("a"), errors.StaleGeneration(), pyfuse3.FUSEError(5)])
def test_handlers_without_reply_never_raise(error: Exception, announced: list[str]) -> None:
    """Forget and release answer nobody: what goes wrong there is only logged."""
    announced.append("a handler without reply failed")
    assert answer(failing_silently(error)) is None


def test_every_handler_stands_behind_the_boundary() -> None:
    """No public method of the operations can let another exception out into pyfuse3's loop."""
    methods = {
        name: method
        for name, method in vars(VolumeOperations).items()
        if inspect.iscoroutinefunction(inspect.unwrap(method)) and not name.startswith("_")
    }
    assert {"lookup", "read", "forget", "rename"} <= set(methods)
    assert [name for name, method in methods.items() if not hasattr(method, "__wrapped__")] == []

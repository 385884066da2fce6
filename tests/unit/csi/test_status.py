"""One table from exceptions to codes: complete, most specific first, silent about the unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from csi import errors, status
from csi.errors import CsiError, MountFailed, ProviderFailed, go_code_name
from fusefs.errors import (
    InvalidSnapshot,
    InvalidTree,
    KeeperError,
    KeeperUnavailable,
    VolumeFailed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ABSTRACT = {CsiError, errors.ApiError, errors.ClassError, errors.ProviderError, KeeperError}
FROM_FUSEFS = {*KeeperError.__subclasses__(), InvalidTree, InvalidSnapshot}


def _tree(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


def _ours() -> list[type[Exception]]:
    """Return every class that may come out of a call."""
    kinds = {*_tree(CsiError), *FROM_FUSEFS, KeeperUnavailable} - ABSTRACT
    return sorted(kinds, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", _ours())
def test_every_error_of_ours_has_a_row(kind: type[Exception]) -> None:
    """A new exception without a code would reach kubelet as a defect."""
    assert kind in status.CODES


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_provider_codes_pass_through_a_wrapper(code: grpc.StatusCode) -> None:
    """Whatever code a provider answers with is the code of the publish."""
    error = MountFailed("shop", "web", "azure", ProviderFailed(code.name, "why"))
    assert status.code_of(error) is code


def test_subclass_without_a_row_takes_its_parents() -> None:
    """A subclass is never INTERNAL by accident."""

    class Special(VolumeFailed):
        """A special case."""

    assert status.code_of(Special("why")) is status.CODES[VolumeFailed]
    assert status.message_of(Special("why")) == "why"


def test_unexpected_errors_tell_only_their_name() -> None:
    """The text of somebody else's exception may hold anything."""
    error = KeyError("canary")
    assert status.code_of(error) is grpc.StatusCode.INTERNAL
    assert "canary" not in status.message_of(error)
    assert "KeyError" in status.message_of(error)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("OK", "OK"),
        ("CANCELLED", "Canceled"),
        ("DEADLINE_EXCEEDED", "DeadlineExceeded"),
        ("NOT_FOUND", "NotFound"),
    ],
)
def test_codes_are_spelled_as_in_go(code: str, name: str) -> None:
    """Messages of the reference are looked for by their text."""
    assert go_code_name(code) == name

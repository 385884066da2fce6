"""The error tree."""

from __future__ import annotations

import pytest

from provider.errors import InvalidRequest, NotFound, Prefixed, Throttled


def test_an_error_shows_its_remedy_behind() -> None:
    """The message comes first, because people search for it."""
    assert str(NotFound("no such secret", remedy="check the name")) == (
        "no such secret; check the name"
    )
    assert str(NotFound("no such secret")) == "no such secret"


def test_a_prefix_keeps_class_and_fields() -> None:
    """Wrapping changes the words and nothing else."""
    error = Throttled("429", remedy="wait", retry_after=3.0).prefixed("failed: ")
    assert isinstance(error, Throttled)
    assert (str(error), error.retry_after, error.args) == (
        "failed: 429; wait",
        3.0,
        ("failed: 429",),
    )


def test_prefixes_nest_from_the_inside_out() -> None:
    """The outer block's text ends up in front."""
    message = "cause"
    with pytest.raises(InvalidRequest) as caught, Prefixed("outer: "), Prefixed("inner: "):
        raise InvalidRequest(message)
    assert str(caught.value) == "outer: inner: cause"


def test_a_prefix_leaves_other_errors_alone() -> None:
    """Defects pass unchanged."""
    message = "defect"
    with pytest.raises(KeyError, match="defect"), Prefixed("outer: "):
        raise KeyError(message)

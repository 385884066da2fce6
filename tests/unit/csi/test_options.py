"""Durations and the options of ours in a class."""

from __future__ import annotations

import logging

import pytest

from csi.durations import parse_duration
from csi.errors import ClassUnusable
from csi.options import parse_options, split_parameters


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2m", 120.0),
        ("90s", 90.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1m1.s", 61.0),
    ],
)
def test_durations_of_go_are_understood(text: str, seconds: float) -> None:
    """Numbers with units, one after another, as Go prints and reads them."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "120", "2 m", "-1s", "1d", "m", "1m!", "0s", "1,5s", "٢m"])
def test_other_durations_are_refused(text: str) -> None:
    """No unit, no number, nothing left over, not zero or below."""
    with pytest.raises(ValueError, match=r"is not a duration"):
        parse_duration(text)


def test_parameters_are_split_by_prefix() -> None:
    """Ours start with akvfs/, everything else is the provider's."""
    theirs, ours = split_parameters({"a": "1", "akvfs/filesystem": "fuse", "akvfs": "2"})
    assert theirs == {"a": "1", "akvfs": "2"}
    assert ours == {"akvfs/filesystem": "fuse"}


def test_unknown_option_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A newer class must not stop an older node."""
    with caplog.at_level(logging.WARNING):
        options = parse_options("shop", "vault", {"akvfs/newer": "1"})
    assert options.poll_interval is None
    assert [record.message for record in caplog.records] == ["unknown option in a class is ignored"]


@pytest.mark.parametrize("value", ["auto", "fuse", "tmpfs"])
def test_filesystem_of_a_class_is_taken(value: str) -> None:
    """Each file system can be asked for; none is asked for by default."""
    assert parse_options("shop", "vault", {"akvfs/filesystem": value}).filesystem == value
    assert parse_options("shop", "vault", {}).filesystem is None


def test_unknown_filesystem_is_refused() -> None:
    """The error names the field and what may be asked for."""
    with pytest.raises(ClassUnusable, match=r"spec\.parameters.*use one of: auto, fuse, tmpfs"):
        parse_options("shop", "vault", {"akvfs/filesystem": "ramfs"})

"""Log records: fields, JSON, and what is never written."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from provider.logs import FirstTimes, JsonFormatter, TextFormatter, configure, where

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "canary-c0de"


def record(message: str, **fields: object) -> logging.LogRecord:
    """Return a log record."""
    made = logging.LogRecord("provider.x", logging.WARNING, "x.py", 1, message, (), None)
    vars(made).update(fields)
    return made


def failed() -> BaseException:
    """Return an exception whose text holds a secret."""
    with pytest.raises(KeyError) as caught:
        raise KeyError(CANARY)
    return caught.value


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Put the process's logging back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("azure", "msal", "urllib3", "requests"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_text_records_show_their_fields() -> None:
    """Fields of ours follow the message; foreign attributes do not."""
    line = TextFormatter().format(record("mounted", pod="web-0", files=2, foreign="x"))
    assert line.endswith("WARNING provider.x: mounted pod=web-0 files=2")


def test_text_records_stay_on_their_line() -> None:
    """A message cannot forge another record or move the cursor."""
    line = TextFormatter().format(record("a\nb\x1b[2K", pod="p\r"))
    assert line.endswith("a\\nb\\x1b[2K pod=p\\r")


def test_json_records_are_objects() -> None:
    """Each record is one JSON object with its fields as members."""
    entry = json.loads(JsonFormatter().format(record("mounted\n", pod="web-0")))
    assert entry["message"] == "mounted\n"
    assert (entry["level"], entry["logger"], entry["pod"]) == ("warning", "provider.x", "web-0")
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_an_exception_is_placed_but_not_quoted(formatter: logging.Formatter) -> None:
    """A trace says where; what an exception says may be a secret."""
    made = record("broken")
    error = failed()
    made.exc_info = (type(error), error, error.__traceback__)
    text = formatter.format(made)
    assert CANARY not in text
    assert "KeyError" in text
    assert "test_logs.py" in text


def test_where_places_an_exception() -> None:
    """Type and frames, innermost first, without the text."""
    text = where(failed())
    assert text.startswith("KeyError < ")
    assert "in failed" in text
    assert CANARY not in text


@pytest.mark.usefixtures("logging_as_before")
def test_vendor_loggers_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever level is asked for, the vendor's libraries write nothing."""
    configure(level="debug", as_json=False)
    for name in ("azure.identity", "msal.oauth2cli.oauth2", "urllib3.connectionpool", "requests"):
        logging.getLogger(name).critical(CANARY)
    logging.getLogger("provider").debug("ours")
    written = capsys.readouterr().err
    assert "ours" in written
    assert CANARY not in written


@pytest.mark.usefixtures("logging_as_before")
def test_logging_goes_to_stderr_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The level and the form are those of the flags."""
    configure(level="warning", as_json=True)
    logging.getLogger("provider").info("quiet")
    logging.getLogger("provider").warning("loud")
    assert json.loads(capsys.readouterr().err)["message"] == "loud"
    assert sys.stdout is not None


def test_first_times_are_remembered_for_a_while() -> None:
    """What was said is not said again, until thousands of others were."""
    said = FirstTimes()
    assert said.first("pod", "warning")
    assert not said.first("pod", "warning")
    for number in range(2_000):
        said.first("pod", str(number))
    assert said.first("pod", "warning")

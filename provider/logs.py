"""Logging of the provider's process: to stderr, one record a line, as text or as JSON.

The vendor's loggers are silent, whatever level is asked for: MSAL logs a token response that it
cannot read, with what is in it, azure-identity repeats every failure that our own errors tell.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import threading
import traceback
from collections import OrderedDict
from typing import Any, Final

from typing_extensions import override

from provider import logkeys

_VENDORS: Final = ("azure", "msal", "urllib3", "requests")
_SILENT: Final = logging.CRITICAL + 1
_REMEMBERED: Final = 2_000  # warnings; about ten for each pod of a full node


def configure(*, level: str, as_json: bool) -> None:
    """Set logging up for this process.

    Args:
        level: Name of the lowest level that is written, in any case.
        as_json: Write JSON objects instead of text.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _VENDORS:
        logging.getLogger(name).setLevel(_SILENT)


class TextFormatter(logging.Formatter):
    """Writes a record for people, with its fields behind the message."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{fields}"
        return "".join(map(_visible, line)) + _trace(record)


class JsonFormatter(logging.Formatter):
    """Writes a record for machines."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if trace := _trace(record):
            entry["trace"] = trace
        return json.dumps(entry, default=str, ensure_ascii=False)


class FirstTimes:
    """Tells what was said before, so that a refresh every minute does not repeat a warning."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: OrderedDict[tuple[str, ...], None] = OrderedDict()

    def first(self, *what: str) -> bool:
        """Return whether this is said for the first time, as far as is remembered."""
        with self._lock:
            new = what not in self._said
            self._said[what] = None
            self._said.move_to_end(what)
            if len(self._said) > _REMEMBERED:
                self._said.popitem(last=False)
            return new


def where(error: BaseException) -> str:
    """Return an exception's type and where it was raised, without its text.

    For exceptions that nobody expected: what they say may quote a secret.
    """
    frames = traceback.extract_tb(error.__traceback__)
    places = (f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in reversed(frames))
    return " < ".join([type(error).__name__, *places])


def _visible(character: str) -> str:
    """Return a character, or its escape where it would move the cursor."""
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _time(record: logging.LogRecord) -> str:
    """Return a record's time in UTC."""
    moment = dt.datetime.fromtimestamp(record.created, tz=dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of a record that carry one of our names."""
    return {key: getattr(record, key) for key in logkeys.ALL if hasattr(record, key)}


def _trace(record: logging.LogRecord) -> str:
    """Return where an exception came from, without its text, which is not ours to print."""
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    kind, _, frames = record.exc_info
    return f"\n{kind.__name__} at\n" + "".join(traceback.format_tb(frames)).rstrip()

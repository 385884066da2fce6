"""Logging: one line per record, as text or JSON, on stderr; the one place that redacts.

Records carry constant messages and their values as fields (`logkeys`). Credentials and content
never come here as such: `csi.records` print them as sizes. What this module removes is the rest: a
token inside somebody else's message, for instance a provider's.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Final

from typing_extensions import override

_REDACTED: Final = "***stripped***"
_TOKEN: Final = re.compile(
    r"""
    eyJ[\w-]{5,}\.[\w-]+\.[\w-]*                       # a JSON web token
    | (?<="token":")[^"]+ | (?<="token":\ ")[^"]+      # the same in kubelet's JSON
    | (?<=\\"token\\":\\")[^"\\]+                      # and that inside a string
    | (?i:(?<=\bBearer\s)[\w.~+/=-]+)
    """,
    re.VERBOSE,
)
_STANDARD: Final = frozenset(
    (*vars(logging.LogRecord("", 0, "", 0, "", None, None)), "message", "asctime", "taskName")
)


def redact(text: str) -> str:
    """Return `text` without the tokens in it."""
    return _TOKEN.sub(_REDACTED, text)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{record.msecs:03.0f}Z"


class TextFormatter(logging.Formatter):
    """``2026-01-02T03:04:05.678Z INFO csi.node: volume published volume_id=csi-1``."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback on the lines below."""
        fields = "".join(f" {key}={_text(value)}" for key, value in _fields(record).items())
        head = f"{_timestamp(record)} {record.levelname} {record.name}: "
        line = f"{head}{record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redact(line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the fields of the record at its top level."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str, ensure_ascii=False))


def configure(*, level: str, as_json: bool) -> None:
    """Send everything from `level` on to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _text(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(char.isspace() or char == '"' for char in text) else text

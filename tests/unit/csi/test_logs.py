"""Log lines: their form, and what is taken out of them."""

from __future__ import annotations

import json
import logging

import pytest

from csi.logs import JsonFormatter, TextFormatter, redact
from csi.records import Credentials
from fakes.kubelet import publish_request

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"


def _record(message: str = "volume published", **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("csi.node", logging.INFO, "", 0, message, None, None)
    record.created, record.msecs = 1_767_323_045.0, 678.0
    vars(record).update(fields)
    return record


def test_text_line_has_time_level_name_and_fields() -> None:
    """One line, fields at its end, quoted where they need it."""
    line = TextFormatter().format(_record(volume_id="csi-1", error="no such vault", empty=""))
    assert line == (
        "2026-01-02T03:04:05.678Z INFO csi.node: volume published "
        "volume_id=csi-1 error='no such vault' empty=''"
    )


def test_json_line_is_one_object() -> None:
    """Every field at the top level, whatever its type."""
    line = JsonFormatter().format(_record(volume_id="csi-1", seconds=1.5, request={"a"}))
    assert json.loads(line) == {
        "ts": "2026-01-02T03:04:05.678Z",
        "level": "info",
        "logger": "csi.node",
        "msg": "volume published",
        "volume_id": "csi-1",
        "seconds": 1.5,
        "request": "{'a'}",
    }


def test_line_feeds_cannot_forge_a_line() -> None:
    """A value with a line feed stays within its line."""
    for formatter in (TextFormatter(), JsonFormatter()):
        assert "\n" not in formatter.format(_record(error="a\nINFO forged"))


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_traceback_is_kept_and_redacted(formatter: logging.Formatter) -> None:
    """A defect is logged with its trace, without the token in its message."""
    try:
        raise RuntimeError(JWT)  # noqa: TRY301 - to have a traceback
    except RuntimeError as error:
        line = formatter.format(_record(exc_info=(type(error), error, error.__traceback__)))
    assert "RuntimeError: ***stripped***" in line
    assert "test_logs.py" in line


@pytest.mark.parametrize(
    "text",
    [
        JWT,
        f"assertion {JWT} rejected",
        '{"aud":{"token":"canary","expirationTimestamp":"x"}}',
        '{"aud": {"token": "canary"}}',
        json.dumps({"tokens": '{"aud":{"token":"canary"}}'}),
        "Authorization: Bearer canary.canary~+/=-",
    ],
)
def test_tokens_are_taken_out(text: str) -> None:
    """Tokens in somebody else's message do not reach the log."""
    assert "canary" not in redact(text)
    assert JWT not in redact(text)
    assert "***stripped***" in redact(text)


def test_ordinary_text_is_left_alone() -> None:
    """What is no token stays: ids, paths, messages."""
    text = 'secret/token version 0123 for pod eyJ-shop/web, "tokens": 3'
    assert redact(text) == text


def test_logged_request_shows_no_credentials() -> None:
    """A request is logged with its attributes and without what the pod brought."""
    credentials = Credentials(secrets={"clientsecret": "canary"}, tokens="canary")
    line = TextFormatter().format(_record(request=publish_request(credentials=credentials)))
    assert "canary" not in line
    assert "csi-web" in line

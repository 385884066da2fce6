"""The search for canaries finds them, wherever and in whatever form one was left."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

import pytest

from csi.logs import JsonFormatter, TextFormatter
from csi.mountcall import go_json
from harness.canaries import Canary, Searcher
from provider._pb import v1alpha1_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET: Final = Canary.of("secret", "{}\n\"\\'<&>é\u2028\U0001f511 %/+={}")
BYTES: Final = Canary.binary("bytes")
OTHER: Final = Canary.of("other")
SEARCHER: Final = Searcher((SECRET, BYTES, OTHER))
TEXT: Final = SECRET.text


def names(found: object) -> set[str]:
    """Return which canaries were found."""
    return {each.canary for each in found}  # type: ignore[attr-defined]


def record(message: str, **fields: object) -> logging.LogRecord:
    """Return a log record."""
    made = logging.LogRecord("x", logging.INFO, "", 0, message, None, None)
    vars(made).update(fields)
    return made


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(TEXT, id="plain"),
        pytest.param(f"code = Unknown desc = {TEXT[:20]}", id="begin-only"),
        pytest.param(TEXT[-20:], id="end-only"),
        pytest.param(repr(TEXT), id="repr"),
        pytest.param(repr({"value": TEXT.encode()}), id="repr-of-bytes"),
        pytest.param(json.dumps({"value": TEXT}), id="json"),
        pytest.param(json.dumps(json.dumps({"value": TEXT})), id="json-in-json"),
        pytest.param(go_json({"value": TEXT}), id="json-of-go"),
        pytest.param(quote(TEXT), id="url"),
        pytest.param(urlencode({"client_secret": TEXT}), id="form"),
        pytest.param(TEXT.encode().hex(), id="hex"),
        pytest.param(base64.b64encode(TEXT.encode()).decode(), id="base64"),
        pytest.param(base64.b64encode(b"user:" + TEXT.encode() + b"!").decode(), id="basic-auth"),
        pytest.param(base64.urlsafe_b64encode(b"{" + TEXT.encode()).decode(), id="base64-of-urls"),
        pytest.param(str(v1alpha1_pb2.MountRequest(secrets=TEXT)), id="protobuf-text"),
        pytest.param(TextFormatter().format(record(TEXT)), id="text-log"),
        pytest.param(JsonFormatter().format(record("x", error=TEXT)), id="json-log"),
        pytest.param(TEXT.encode("utf-16-le"), id="memory"),
    ],
)
def test_every_form_of_a_secret_is_found(told: str | bytes) -> None:
    """Cut, quoted, escaped or encoded, a secret in a text is seen, and only that one."""
    data = told if isinstance(told, bytes) else told.encode()
    assert names(SEARCHER.in_bytes("text", data)) == {"secret"}


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(b"\x7fELF" + BYTES.decoded, id="plain"),
        pytest.param(BYTES.text.encode(), id="base64"),
        pytest.param(repr([BYTES.decoded]).encode(), id="repr"),
        pytest.param(BYTES.decoded.hex(" ").encode(), id="spaced-hex"),
        pytest.param(
            str(v1alpha1_pb2.File(path="a", contents=BYTES.decoded)).encode(), id="protobuf-text"
        ),
    ],
)
def test_every_form_of_bytes_is_found(told: bytes) -> None:
    """A secret that is no text is seen as bytes and as whatever text is made of them."""
    assert names(SEARCHER.in_bytes("bytes", told)) == {"bytes"}


def test_what_is_no_canary_is_not_found(tmp_path: Path) -> None:
    """Ordinary texts, and files that the test planted itself, raise no alarm."""
    planted = tmp_path / "config"
    planted.write_text(TEXT)
    (tmp_path / "log").write_text(f"volume published {Canary.of('stranger').text}")
    assert list(SEARCHER.in_tree(tmp_path, planted=[planted])) == []
    assert list(SEARCHER.in_process(os.getpid())) == []


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(lambda top: (top / "x.log").write_text(f"error={TEXT}"), id="log"),
        pytest.param(lambda top: (top / ".hidden").write_bytes(TEXT.encode()), id="hidden-file"),
        pytest.param(lambda top: (top / OTHER.text).touch(), id="name"),
        pytest.param(lambda top: (top / "link").symlink_to(OTHER.text), id="link"),
        pytest.param(lambda top: (top / "core").write_bytes(bytes(9) + BYTES.decoded), id="core"),
    ],
)
def test_planted_file_is_found(tmp_path: Path, plant: Callable[[Path], object]) -> None:
    """A canary in a file, in its name or in a link is seen, however deep it lies."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    plant(folder)
    [found] = SEARCHER.in_tree(tmp_path)
    assert str(folder) in found.where


HOLDER: Final = "import sys; print(flush=True); sys.stdin.read()"
HOLDER_OF_A_FILE: Final = """
import os, sys
file = open("open", "w+b", 0)
file.write(sys.stdin.buffer.readline())
os.unlink("open")
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("code", "arguments", "environment", "where"),
    [
        pytest.param(HOLDER, [f"--token={OTHER.text}"], {}, "cmdline", id="argument"),
        pytest.param(HOLDER, [], {"TOKEN": OTHER.text}, "environ", id="environment"),
        pytest.param(HOLDER_OF_A_FILE, [], {}, "(deleted)", id="deleted-file"),
    ],
)
def test_secret_at_a_process_is_found(
    tmp_path: Path,
    code: str,
    arguments: list[str],
    environment: dict[str, str],
    where: str,
) -> None:
    """A canary among arguments, in the environment or in a file that has no name left is seen."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, **environment},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(OTHER.text.encode() + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        found = list(SEARCHER.in_process(process.pid))
        process.stdin.close()
        assert process.wait(timeout=30) == 0
    assert where in " ".join(each.where for each in found)
    assert names(found) == {"other"}

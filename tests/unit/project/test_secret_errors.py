"""Errors about secrets: neither an error nor what it came from shows one, however it is printed."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, Any, Final, Literal

import grpc
import pytest

from csi.errors import CsiError, MountFailed
from csi.fetch import Fetcher
from csi.providers import SocketProviders
from csi.records import TOKENS_KEY, Credentials
from csi.requests import parse_publish
from csi.status import message_of
from fakes.keyvault import FakeClouds, FakeVaults, attributes, objects_text
from fakes.kubelet import ROOT, publish_message, publish_request
from fakes.providersocket import mount_response, provider_at
from fakes.sources import FakeClasses
from fusefs.errors import FusefsError, InvalidSnapshot
from fusefs.memory import sealed_memfd
from fusefs.snapshot import FileSpec, Snapshot, seal
from harness.canaries import Canary, Searcher
from provider.budget import Budget
from provider.errors import ProviderError
from provider.model import SecretBytes
from provider.mounts import Mounter, MountRequest
from provider.wire import parse_attributes, parse_permission, parse_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    _Field = Literal["volume_id", "target_path", "readonly", "volume_capability"]

CONTENT: Final = Canary.of("content")
SECRET: Final = Canary.of("client secret", "{}&<")
TOKEN: Final = Canary.of("token", "eyJhbGciOiJub25lIn0.{}.{}")
SEARCHER: Final = Searcher((CONTENT, SECRET, TOKEN))
CREDENTIALS: Final = Credentials(
    secrets={"clientsecret": SECRET.text},
    tokens=json.dumps({"audience": {"token": TOKEN.text}}),
)


def everything(error: BaseException) -> str:
    """Return all text that can be made of an error and of what it came from."""
    told = traceback.format_exception(error)
    for link in chain(error):
        told += [str(link), repr(link), repr(link.args), repr(vars(link))]
        told += getattr(link, "__notes__", [])
    return "\n".join(told)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and every error it came from, also those that tracebacks suppress."""
    yield error
    for link in (error.__cause__, error.__context__):
        if link is not None:
            yield from chain(link)
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from chain(member)


def check(error: BaseException) -> None:
    """Fail if an error shows a canary."""
    assert list(SEARCHER.in_bytes("error", everything(error).encode())) == []


def abort(code: grpc.StatusCode, details: str) -> Any:  # noqa: ANN401 - an answer of the fake
    """Return an answer that ends the call with a status."""
    return lambda _, context: context.abort(code, details)


ANSWERS: Final = {
    "refusal": abort(grpc.StatusCode.PERMISSION_DENIED, "no"),
    "defect": abort(grpc.StatusCode.INTERNAL, ""),
    "echo-of-a-token": abort(grpc.StatusCode.UNAUTHENTICATED, f"Bearer {TOKEN.text} is no good"),
    "echo-of-tokens": abort(grpc.StatusCode.INVALID_ARGUMENT, f"attributes: {CREDENTIALS.tokens}"),
    "too-large": lambda *_: mount_response({"a": CONTENT.text.encode() * 1000}),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_errors_of_a_provider_show_no_secret(
    tmp_path: Path,
    answer: Any,  # noqa: ANN401 - as above
) -> None:
    """Whatever a provider answers, kubelet is told of it without tokens, and without content."""
    classes = FakeClasses()
    classes.put()
    providers = SocketProviders([tmp_path], max_reply_bytes=4096, timeout_s=10.0)
    fetcher = Fetcher(classes, providers)
    with provider_at(tmp_path / "azure.sock") as fake:
        fake.answer = answer
        with pytest.raises(MountFailed) as caught:
            await fetcher.fetch(publish_request().spec, CREDENTIALS, ())
        providers.close()
    check(caught.value)
    assert list(SEARCHER.in_bytes("status", message_of(caught.value).encode())) == []


@pytest.mark.parametrize("field", ["volume_id", "target_path", "readonly", "volume_capability"])
def test_errors_about_a_request_show_no_secret(field: _Field) -> None:
    """A refused publish is told by its field; its secrets and tokens stay out of the text."""
    message = publish_message()
    message.secrets["clientsecret"] = SECRET.text
    message.volume_context[TOKENS_KEY] = CREDENTIALS.tokens
    message.ClearField(field)
    with pytest.raises(CsiError, match=field) as caught:
        parse_publish(message, kubelet_root=ROOT)
    check(caught.value)


OBJECT: Final = {"objectName": "db", "objectType": "secret"}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"objectEncoding": "base64"}, id="not-base64"),
        pytest.param({"objectEncoding": "hex"}, id="not-hex"),
        pytest.param({"objectName": "missing"}, id="missing"),
    ],
)
def test_errors_of_a_mount_show_no_secret(changes: dict[str, str]) -> None:
    """The provider refuses content and names the object."""
    mounter = Mounter(clouds=FakeClouds(), vaults=FakeVaults(values={"db": f"{CONTENT.text}!"}))
    request = MountRequest(
        attributes=attributes(objects=objects_text(OBJECT | changes)),
        secrets={"clientid": SecretBytes("app"), "clientsecret": SecretBytes(SECRET.text)},
        permission=0o644,
    )
    with pytest.raises(ProviderError) as caught:
        mounter.mount(request, Budget(10.0))
    check(caught.value)


@pytest.mark.parametrize("parse", [parse_attributes, parse_secrets, parse_permission])
@pytest.mark.parametrize("form", ['{"a": "%s', '{"a": %s}', '{"a": ["%s"]}', '"%s"', "%s", '{"%s'])
def test_errors_about_json_show_no_secret(parse: Callable[[str], object], form: str) -> None:
    """What is not JSON of the protocol is not quoted, nor by the parser's error behind it."""
    with pytest.raises(ProviderError) as caught:
        parse(form % TOKEN.text)
    check(caught.value)


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param(["../a"], id="climbing"),
        pytest.param(["a", "a"], id="twice"),
        pytest.param(["a", "a/b"], id="file-and-directory"),
    ],
)
def test_errors_about_a_tree_show_no_content(paths: list[str]) -> None:
    """Files that form no tree are named, not shown."""
    files = [FileSpec(path=path, content=CONTENT.text.encode()) for path in paths]
    with pytest.raises(FusefsError) as caught:
        seal(files, previous=None, now_ns=0)
    check(caught.value)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b"other magic"], id="magic"),
        pytest.param([b"akvfs\x00\x00\x01", b"\x10\x00\x00\x00"], id="index"),
        pytest.param([b"akvfs\x00\x00\x01", b"\xff\xff\x00\x00"], id="length"),
    ],
)
def test_errors_about_a_snapshot_show_no_content(parts: list[bytes]) -> None:
    """A broken memory file is refused without a byte of it."""
    fd = sealed_memfd("broken", [*parts, CONTENT.text.encode()])
    with pytest.raises(InvalidSnapshot) as caught:
        Snapshot.map(fd)
    check(caught.value)

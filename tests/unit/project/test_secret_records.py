"""Records that hold secrets: no way of making text of them shows one, and none is pickled."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import csi.logs
import provider.logs
from csi import logkeys
from csi.fetch import Content
from csi.grouping import Groups
from csi.mountcall import mount_call
from csi.options import ClassOptions
from csi.record import encode_record
from csi.records import (
    TOKENS_KEY,
    Credentials,
    MountReply,
    ObjectVersion,
    PublishRequest,
    ReturnedFile,
)
from csi.requests import parse_publish
from csi.volumes import Registry
from fusefs.published import PublishedVolume
from fusefs.snapshot import FileSpec, seal
from harness.canaries import Canary, Searcher
from harness.kubelet import KubeletRoot
from harness.node import publish_request
from provider.azure.errors import Context
from provider.azure.transport import Call
from provider.budget import Budget
from provider.emulator import EmulatorConfig
from provider.emulator.directory import Directory
from provider.emulator.vault import Draft
from provider.model import Cloud, MountedFile, SecretBundle, SecretBytes, ServicePrincipal, Vault
from provider.mounts import MountRequest
from provider.parameters import POD_NAME, POD_NAMESPACE, TOKENS, parse_parameters
from provider.wire import parse_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT: Final = Canary.of("content", "{}\n{}")
SECRET: Final = Canary.of("client secret", "{}&<é")
TOKEN: Final = Canary.of("token")
SEARCHER: Final = Searcher((CONTENT, SECRET, TOKEN))
BUNDLE: Final = SecretBytes(CONTENT.text)
IDENTITY: Final = ServicePrincipal(
    tenant_id="tenant", client_id="app", client_secret=SecretBytes(SECRET.text)
)
VAULT: Final = Vault(
    name="kv", cloud=Cloud(name="Test", authority="https://login/", vault_suffix="vault.test")
)
CREDENTIALS: Final = Credentials(secrets={"clientsecret": SECRET.text}, tokens=TOKEN.text)
SPEC: Final = FileSpec(path="password", content=CONTENT.text.encode())
FILE: Final = ReturnedFile(path="password", mode=0o644, content=CONTENT.text.encode())
VERSION: Final = ObjectVersion("secret/password", "1")
ATTRIBUTES: Final = {
    POD_NAME: "web-0",
    POD_NAMESPACE: "shop",
    "keyvaultName": "kv",
    "tenantID": "tenant",
    TOKENS: TOKEN.text,
}
CONFIG: Final = json.dumps(
    {
        "tenant": "t",
        "principals": {"app": {"client_id": "app", "client_secret": SECRET.text}},
        "vaults": {"demo": {"secrets": {"a": {"value": CONTENT.text}}}},
    }
)


def publish() -> PublishRequest:
    """Return what becomes of kubelet's publish with secrets and tokens."""
    root = KubeletRoot(path=Path("/var/lib/kubelet"))
    volume = root.volume()
    message = publish_request(
        volume,
        volume_context=volume.context("app", **{TOKENS_KEY: TOKEN.text}),
        secrets={"clientsecret": SECRET.text},
    )
    return parse_publish(message, kubelet_root=str(root.path))


def registry() -> Registry:
    """Return the published volumes of a node server, one of them."""
    made = Registry()
    request = publish()
    sealed = seal([SPEC], previous=None, now_ns=0)
    made.served(made.begin(request), sealed.snapshot, (VERSION,), record())
    return made


def record() -> bytes:
    """Return the record that a keeper holds of a volume."""
    return encode_record(publish().spec, (VERSION,))


def published() -> PublishedVolume:
    """Return a volume as a keeper lists it."""
    snapshot = seal([SPEC], previous=None, now_ns=0).snapshot
    return PublishedVolume(
        volume_id="v",
        target="/t",
        generation=1,
        record=record(),
        worker_pid=None,
        snapshot=snapshot,
    )


RECORDS: Final[dict[str, Callable[[], object]]] = {
    "fusefs-file": lambda: SPEC,
    "fusefs-snapshot": lambda: seal([SPEC], previous=None, now_ns=0).snapshot,
    "fusefs-sealed": lambda: seal([SPEC], previous=None, now_ns=0),
    "fusefs-entries": lambda: list(seal([SPEC], previous=None, now_ns=0).snapshot.entries()),
    "fusefs-published": published,
    "csi-credentials": lambda: CREDENTIALS,
    "csi-request": publish,
    "csi-call": lambda: mount_call({"objects": "x"}, publish().spec, CREDENTIALS, ()),
    "csi-file": lambda: FILE,
    "csi-reply": lambda: MountReply(files=(FILE,), versions=(VERSION,)),
    "csi-content": lambda: Content(
        provider="azure", files=(SPEC,), versions=(VERSION,), options=ClassOptions()
    ),
    "csi-group": lambda: Groups().of(publish().spec, CREDENTIALS),
    "csi-volume": lambda: list(registry()),
    "csi-record": record,
    "provider-secret": lambda: BUNDLE,
    "provider-identity": lambda: IDENTITY,
    "provider-bundle": lambda: SecretBundle(value=BUNDLE, object_id="https://kv/secrets/a/1"),
    "provider-file": lambda: MountedFile(
        path="a", content=BUNDLE, mode=0o644, object_id="secret/a", version="1"
    ),
    "provider-secrets": lambda: parse_secrets(json.dumps({"clientsecret": SECRET.text})),
    "provider-request": lambda: MountRequest(
        attributes={}, secrets={"clientsecret": SecretBytes(SECRET.text)}, permission=420
    ),
    "provider-parameters": lambda: parse_parameters(ATTRIBUTES),
    "provider-context": lambda: Context(
        vault=VAULT, identity=IDENTITY, path="secrets/a/", call=Call(Budget(1.0))
    ),
    "emulator-config": lambda: EmulatorConfig.parse(CONFIG),
    "emulator-directory": lambda: Directory(EmulatorConfig.parse(CONFIG), "x", float).principals,
    "emulator-draft": lambda: Draft(value=CONTENT.text),
}


def log_line(formatter: logging.Formatter, field: str, value: object) -> str:
    """Return the line that a logger writes of a value, in its message and as a field."""
    made = logging.LogRecord("x", logging.DEBUG, "", 0, "%s %r", (value, value), None)
    setattr(made, field, value)
    return formatter.format(made)


PRINTERS: Final[dict[str, Callable[[Any], str]]] = {
    "repr": repr,
    "str": str,
    "format": "{:}".format,
    "percent": lambda value: "%s %r" % (value, value),  # noqa: UP031 - the form under test
    "in-a-dict": lambda value: repr({"x": [value]}),
    "json": lambda value: json.dumps([value], default=str),
    "pprint": pprint.pformat,
    "csi-text-log": lambda value: log_line(csi.logs.TextFormatter(), logkeys.REQUEST, value),
    "csi-json-log": lambda value: log_line(csi.logs.JsonFormatter(), logkeys.REQUEST, value),
    "provider-text-log": lambda value: log_line(provider.logs.TextFormatter(), "pod", value),
    "provider-json-log": lambda value: log_line(provider.logs.JsonFormatter(), "pod", value),
}


@pytest.mark.parametrize("printer", PRINTERS.values(), ids=PRINTERS.keys())
@pytest.mark.parametrize("make", RECORDS.values(), ids=RECORDS.keys())
def test_text_of_a_record_shows_no_secret(
    make: Callable[[], object], printer: Callable[[object], str]
) -> None:
    """Printed, formatted or logged, a record shows what it is and not what it holds."""
    text = printer(make())
    assert list(SEARCHER.in_bytes("text", text.encode())) == []


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, id=name) for name, make in RECORDS.items() if "emulator" not in name],
)
def test_pickle_of_a_record_holds_no_secret(make: Callable[[], object]) -> None:
    """A record that holds a secret cannot be pickled; the error does not show it."""
    try:
        pickled = pickle.dumps(make())
    except TypeError as error:
        pickled = repr(error).encode()
    assert list(SEARCHER.in_bytes("pickle", pickled)) == []


@pytest.mark.parametrize("secretive", [SPEC, CREDENTIALS, FILE, BUNDLE], ids=repr)
def test_secrets_are_not_copied_unseen(secretive: object) -> None:
    """What would double a secret is an error; a changed record is made by name (attrs.evolve)."""
    for misuse in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="not pickled or copied"):
            misuse(secretive)

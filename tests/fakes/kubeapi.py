"""A Kubernetes API server as far as the node server knows one: HTTPS, a token, three resources."""

from __future__ import annotations

import contextlib
import copy
import http.server
import json
import re
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import attrs
import trustme
import yaml
from typing_extensions import override

from csi.kube import KubeApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GROUP: Final = "secrets-store.csi.x-k8s.io"
CLASSES: Final = "secretproviderclasses"
STATUSES: Final = "secretproviderclasspodstatuses"
TOKEN: Final = "token-of-the-node-server"
_PATH: Final = re.compile(r"/(?:api/v1|apis/[^/]+/v1)/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?")
_PATIENCE_S: Final = 20.0

Document = dict[str, Any]


@attrs.frozen
class Answer:
    """An answer that takes the place of the right one; without a status the peer hangs up."""

    status: int | None
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytes = b'{"kind": "Status", "message": "not for eyes"}'


class FakeKubeApi:
    """Objects, the calls that were made, and faults to come.

    Attributes:
        objects: By resource, namespace and name.
        calls: Verb, resource, namespace and name, in the order of their arrival.
        faults: What answers the next calls of a verb on a resource, instead of the server.
        hook: Called before a call is answered.
        kinds: The resources that the server knows.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Document] = {}
        self.calls: list[tuple[str, str, str, str]] = []
        self.faults: dict[tuple[str, str], list[Answer]] = {}
        self.hook: Callable[[str, str], None] = lambda _verb, _resource: None
        self.kinds = {CLASSES, STATUSES, "pods"}
        self.changed = threading.Condition()
        self.ended = False
        self.cut = 0  # watches begun before the last cut are over
        self.lines: list[tuple[str, str, bytes]] = []
        self._version = 100

    def fail(self, verb: str, resource: str, *statuses: int | None, **headers: str) -> None:
        """Answer the next calls with these statuses."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.setdefault((verb, resource), []).extend(
            Answer(status, names) for status in statuses
        )

    def put_class(self, name: str, namespace: str = "shop", **parameters: str) -> None:
        """Create a class, or change it."""
        document = {
            "apiVersion": f"{GROUP}/v1",
            "kind": "SecretProviderClass",
            "spec": {"provider": "azure", "parameters": parameters or {"keyvaultName": "kv"}},
        }
        self.put(CLASSES, namespace, name, document)

    def put(self, resource: str, namespace: str, name: str, document: Document) -> None:
        """Store an object, and tell the watches."""
        key = (resource, namespace, name)
        with self.changed:
            kind = "MODIFIED" if key in self.objects else "ADDED"
            self._version += 1
            stored = copy.deepcopy(document)
            stored.setdefault("metadata", {}).update(
                name=name, namespace=namespace, resourceVersion=str(self._version)
            )
            self.objects[key] = stored
            self._tell(kind, key, stored)

    def delete(self, resource: str, namespace: str, name: str) -> None:
        """Delete an object, and tell the watches."""
        with self.changed:
            self._version += 1
            gone = self.objects.pop((resource, namespace, name))
            gone["metadata"]["resourceVersion"] = str(self._version)
            self._tell("DELETED", (resource, namespace, name), gone)

    def send(self, resource: str, namespace: str, event: Document) -> None:
        """Send any event to the watches."""
        with self.changed:
            self.lines.append((resource, namespace, json.dumps(event).encode() + b"\n"))
            self.changed.notify_all()

    def cut_watches(self) -> None:
        """End all watches, as a server does when it restarts."""
        with self.changed:
            self.cut += 1
            self.changed.notify_all()

    def end(self) -> None:
        """Let every waiting thread go."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def verbs(self, resource: str) -> list[str]:
        """Return the verbs of the calls for a resource."""
        return [verb for verb, called, _, _ in self.calls if called == resource]

    def state(self) -> tuple[str, int]:
        """Return the version of the whole, and how many events there were."""
        with self.changed:
            return str(self._version), len(self.lines)

    def _tell(self, kind: str, key: tuple[str, str, str], document: Document) -> None:
        line = json.dumps({"type": kind, "object": document}).encode() + b"\n"
        self.lines.append((key[0], key[1], line))
        self.changed.notify_all()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    api: FakeKubeApi
    context: ssl.SSLContext

    def __init__(self, api: FakeKubeApi, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api, self.context = api, context
        self.connections: set[socket.socket] = set()

    @override
    def finish_request(self, request: Any, client_address: Any) -> None:
        """Speak TLS in the thread of the connection."""
        with self.context.wrap_socket(request, server_side=True) as connection:
            self.connections.add(connection)
            super().finish_request(connection, client_address)

    def hang_up(self) -> None:
        """End every connection that a client left open."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet: a client that leaves in the middle is what some tests want."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        api = self.server.api
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        matched = _PATH.fullmatch(url.path)
        assert matched is not None, url.path
        namespace, resource, name = matched[1], matched[2], matched[3] or ""
        verb = {"POST": "create", "PUT": "update"}.get(self.command, "get" if name else "list")
        verb = "watch" if "watch" in query else verb
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        api.calls.append((verb, resource, namespace, name))
        api.hook(verb, resource)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {})
            return
        faults = api.faults.get((verb, resource))
        if faults:
            self._fault(faults.pop(0))
        elif resource not in api.kinds:
            self._plain(404, b"404 page not found\n", {})
        elif verb == "watch":
            self._watch(resource, namespace, query["resourceVersion"][0])
        else:
            self._act(verb, (resource, namespace, name), body)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815 - names that http.server looks for

    def _act(self, verb: str, key: tuple[str, str, str], body: bytes) -> None:
        api, (resource, namespace, name) = self.server.api, key
        if verb == "list":
            items = [each for known, each in api.objects.items() if known[:2] == key[:2]]
            version, _ = api.state()
            self._answer(200, {"metadata": {"resourceVersion": version}, "items": items})
            return
        document = json.loads(body) if body else {}
        name = name or document["metadata"]["name"]
        known = api.objects.get((resource, namespace, name))
        if (verb == "create") is (known is not None):
            code = 409 if known is not None else 404
            self._answer(code, {"kind": "Status", "code": code, "details": {"name": name}})
            return
        if verb == "update":
            assert known is not None
            if document["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"]:
                self._answer(409, {"kind": "Status", "code": 409, "details": {"name": name}})
                return
        if verb != "get":
            api.put(resource, namespace, name, document)
        self._answer(200, api.objects[resource, namespace, name])

    def _watch(self, resource: str, namespace: str, version: str) -> None:
        api = self.server.api
        with api.changed:
            sent = next(
                (
                    position
                    for position, (_, _, line) in enumerate(api.lines)
                    if int(json.loads(line)["object"]["metadata"]["resourceVersion"]) > int(version)
                ),
                len(api.lines),
            )
            begun = api.cut
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            with api.changed:
                while len(api.lines) == sent and not api.ended and api.cut == begun:
                    api.changed.wait(_PATIENCE_S)
                lines = [line for *key, line in api.lines[sent:] if key == [resource, namespace]]
                sent, over = len(api.lines), api.ended or api.cut != begun
            for line in lines:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            if over:
                self.wfile.write(b"0\r\n\r\n")
                self.close_connection = True
                return

    def _fault(self, answer: Answer) -> None:
        if answer.status is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._plain(answer.status, answer.body, answer.headers)

    def _answer(self, status: int, document: Document) -> None:
        self._plain(status, json.dumps(document).encode(), {})

    def _plain(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@attrs.frozen
class Running:
    """A server that answers, and how to reach it."""

    server: FakeKubeApi
    kubeconfig: Path
    api: KubeApi


@contextlib.contextmanager
def kube_api(directory: Path, *, token: str = TOKEN) -> Iterator[Running]:
    """Serve inside the block; the kubeconfig lies in `directory`."""
    fake, authority = FakeKubeApi(), trustme.CA(key_type=trustme.KeyType.ECDSA)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = _Server(fake, context)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    ca = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(_kubeconfig(f"https://127.0.0.1:{server.server_port}", ca, token))
    try:
        api = KubeApi.load(kubeconfig)
        yield Running(fake, kubeconfig, api)
        api.close()
    finally:
        fake.end()
        server.shutdown()
        server.hang_up()
        server.server_close()
        thread.join()


def _kubeconfig(url: str, ca: Path, token: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [
                {"name": "test", "cluster": {"server": url, "certificate-authority": str(ca)}}
            ],
            "users": [{"name": "test", "user": {"token": token}}],
        }
    )

"""An Azure that a test scripts: a vault and an Entra ID that may misbehave as no emulator should.

One TLS server on loopback plays every host name; `fakes.loopback.LoopbackAdapter` leads there.
Unscripted, it is honest: a challenge, discovery, a token, a secret whose value is its name.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qs, urlsplit

import attrs
import trustme
from typing_extensions import override

from fakes.loopback import LoopbackAdapter
from provider.azure.credentials import FreshIdentities
from provider.azure.keyvault import KeyVaults
from provider.azure.transport import new_session
from provider.model import Cloud, SecretBytes, ServicePrincipal, Vault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import requests

TENANT: Final = "6f1c6a0e-0000-4000-8000-000000000001"
CLIENT_SECRET: Final = "canary-client-secret/é"
TOKEN: Final = "canary-token-0123456789"
HOSTS: Final = ("peer.vault.test", "login.test", "evil.test")


@attrs.frozen
class Received:
    """One request as it arrived."""

    method: str
    host: str
    path: str
    headers: Mapping[str, str]
    form: Mapping[str, str]

    @property
    def authorization(self) -> str:
        """Return the header that carries a token."""
        return self.headers.get("Authorization", "")


@attrs.frozen
class Answer:
    """What is sent back; a body that is not text is sent as JSON."""

    status: int
    body: object = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)


class AzurePeer:
    """The scripted Azure.

    Attributes:
        port: Where it listens.
        received: Every request, in order.
        script: Asked first; None means the honest answer. May raise `ConnectionError` to reset.
        tenant: The tenant that the vault's challenge names.
    """

    def __init__(self, port: int, session: requests.Session) -> None:
        self.port = port
        self.session = session
        self.received: list[Received] = []
        self.script: Callable[[Received], Answer | None] = lambda _: None
        self.tenant = TENANT

    def cloud(self) -> Cloud:
        """Return the cloud that this is."""
        return Cloud(
            name="Peer",
            authority=f"https://login.test:{self.port}/",
            vault_suffix=f"vault.test:{self.port}",
            custom=True,
        )

    def vaults(self) -> KeyVaults:
        """Return the provider's own way to vaults, led here."""
        identities = FreshIdentities(session=self.session)
        return KeyVaults(session=self.session, identities=identities, user_agent="test/1")

    def vault(self) -> Vault:
        """Return the vault."""
        return Vault(name="peer", cloud=self.cloud())

    def identity(self, tenant: str = TENANT) -> ServicePrincipal:
        """Return who asks."""
        return ServicePrincipal(
            tenant_id=tenant, client_id="app", client_secret=SecretBytes(CLIENT_SECRET)
        )

    def challenge(self, **changes: str) -> Answer:
        """Return a 401 with the vault's challenge."""
        fields = {
            "authorization": f"https://login.test:{self.port}/{self.tenant}",
            "resource": f"https://vault.test:{self.port}",
        } | changes
        text = ", ".join(f'{key}="{value}"' for key, value in fields.items())
        return Answer(401, {"error": {"code": "x"}}, {"WWW-Authenticate": f"Bearer {text}"})

    def answer(self, request: Received) -> Answer:
        """Answer a request, by the script or honestly."""
        self.received.append(request)
        scripted = self.script(request)
        return scripted if scripted is not None else self.honest(request)

    def honest(self, request: Received) -> Answer:
        """Answer as the service does."""
        if request.path.endswith("/.well-known/openid-configuration"):
            base = f"https://login.test:{self.port}/{request.path.split('/')[1]}"
            return Answer(
                200,
                {
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                },
            )
        if request.path.endswith("/oauth2/v2.0/token"):
            return Answer(200, {"token_type": "Bearer", "expires_in": 3599, "access_token": TOKEN})
        if request.authorization != f"Bearer {TOKEN}":
            return self.challenge()
        name = request.path.split("/")[2]
        return Answer(
            200,
            {
                "value": name,
                "id": f"https://peer.vault.test:{self.port}/secrets/{name}/v1",
                "attributes": {"enabled": True},
            },
        )


@contextlib.contextmanager
def azure_peer(directory: Path) -> Iterator[AzurePeer]:
    """Run a scripted Azure while the block runs.

    Args:
        directory: Where its certificate authority is written, as `ca.pem`.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*HOSTS).configure_cert(context)
    server = _Server(0)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="azure-peer")
    with new_session() as session:
        session.trust_env = False
        session.verify = str(directory / "ca.pem")
        session.mount("https://", LoopbackAdapter())
        peer = server.peer = AzurePeer(server.server_address[1], session)
        thread.start()
        try:
            yield peer
        finally:
            session.close()
            server.shutdown()
            server.hang_up()
            server.server_close()
            thread.join()


class _Server(http.server.ThreadingHTTPServer):
    """Knows the peer that it plays, and its open connections."""

    daemon_threads = False  # closing joins them: nothing of a test outlives it
    peer: AzurePeer

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.connections: set[socket.socket] = set()

    def hang_up(self) -> None:
        """End every connection that a client left open."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet: a client that leaves in the middle is what some tests want."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """Translates between HTTP and the peer."""

    protocol_version = "HTTP/1.1"
    timeout = 10

    @override
    def setup(self) -> None:
        """Note a connection."""
        super().setup()
        cast("_Server", self.server).connections.add(self.connection)

    @override
    def finish(self) -> None:
        """Forget a connection."""
        cast("_Server", self.server).connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        """Answer a GET."""
        self._exchange()

    def do_POST(self) -> None:
        """Answer a POST."""
        self._exchange()

    def _exchange(self) -> None:
        """Read a request, ask the peer, write the answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        form = {key: values[0] for key, values in parse_qs(body).items()}
        host = (self.headers.get("Host") or "").partition(":")[0]
        path = urlsplit(self.path).path
        peer = cast("_Server", self.server).peer
        try:
            answer = peer.answer(
                Received(self.command, host, path, dict(self.headers.items()), form)
            )
        except ConnectionError:
            self.close_connection = True
            return
        content = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content.encode())))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content.encode())

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""

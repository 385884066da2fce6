"""Reaching the emulator without `/etc/hosts`: host names that always lead to 127.0.0.1.

TLS names, certificates and the Host header stay what they are; only the resolver is left out, so
that the Azure SDK runs unmodified where a test has no mount namespace of its own.
"""

from __future__ import annotations

import http.client
import json
import ssl
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlencode, urlsplit

import attrs
import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient
from requests.adapters import HTTPAdapter
from typing_extensions import override

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Mapping
    from pathlib import Path

    from provider.emulator import EmulatorClient


class LoopbackAdapter(HTTPAdapter):
    """Connects to 127.0.0.1 whatever the host of the URL, and checks that host's certificate."""

    @override
    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host_params, pool_kwargs = super().build_connection_pool_key_attributes(
            request, verify, cert
        )
        name = host_params["host"]
        pool = {**pool_kwargs, "server_hostname": name, "assert_hostname": name}
        return {**host_params, "host": "127.0.0.1"}, pool

    @override
    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        request.headers["Host"] = urlsplit(str(request.url)).netloc
        return super().send(request, *args, **kwargs)


def loopback_transport(ca_file: Path) -> RequestsTransport:
    """Return a transport for `transport=` of a credential or client, which trusts `ca_file`."""
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", LoopbackAdapter())
    return RequestsTransport(session=session, connection_verify=str(ca_file))


@attrs.frozen(kw_only=True)
class Account:
    """A service principal as a client presents itself."""

    tenant: str
    client_id: str
    client_secret: str = attrs.field(repr=False)


class Connect(Protocol):
    """Makes SecretClients; what a fixture returns that closes them."""

    def __call__(
        self,
        account: Account | str = "app",
        vault: str = "demo",
        *,
        api_version: str = "7.4",
        retries: int = 0,
    ) -> SecretClient:
        """Return a client for an account, or for a principal of the configuration."""


def secret_client(
    emulator: EmulatorClient,
    account: Account,
    stack: contextlib.ExitStack,
    *,
    vault: str,
    api_version: str,
    retries: int,
) -> SecretClient:
    """Return an unmodified SecretClient, with its credential, that `stack` closes."""
    credential = ClientSecretCredential(
        account.tenant,
        account.client_id,
        account.client_secret,
        authority=emulator.login_url,
        disable_instance_discovery=True,
        transport=loopback_transport(emulator.ca_file),
        retry_total=retries,
    )
    client = SecretClient(
        emulator.vaults[vault],
        credential,
        transport=loopback_transport(emulator.ca_file),
        api_version=api_version,
        retry_total=retries,
    )
    stack.enter_context(credential)
    return stack.enter_context(client)


@attrs.frozen(kw_only=True)
class Answer:
    """One HTTP answer of the emulator."""

    status: int
    headers: Mapping[str, str]
    content: Any


class Wire:
    """One TLS connection to the emulator, kept alive, for requests that no SDK would send."""

    def __init__(self, emulator: EmulatorClient) -> None:
        context = ssl.create_default_context(cafile=str(emulator.ca_file))
        self.emulator = emulator
        self.connection = http.client.HTTPSConnection(
            "127.0.0.1", emulator.port, timeout=10, context=context
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request to a URL of the emulator and return the answer."""
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        self.connection.request(method, target, body, {"Host": parts.netloc, **(headers or {})})
        response = self.connection.getresponse()
        data = response.read()
        content = json.loads(data) if data else None
        return Answer(status=response.status, headers=dict(response.headers), content=content)

    def sign_in(self, tenant: str, **form: str) -> Answer:
        """Ask the token endpoint of a tenant."""
        url = f"{self.emulator.login_url}/{tenant}/oauth2/v2.0/token"
        content_type = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.send("POST", url, body=urlencode(form).encode(), headers=content_type)

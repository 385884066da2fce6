"""What no SDK would send: routes, methods, parameters, bodies, tokens, and HTTP itself."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
from typing import TYPE_CHECKING, Final

import jwt
import pytest

if TYPE_CHECKING:
    from fakes.loopback import Wire
    from provider.emulator import EmulatorClient

TENANT: Final = "6f1c6a0e-0000-4000-8000-000000000001"
OTHER_TENANT: Final = "6f1c6a0e-0000-4000-8000-000000000002"
VERSION: Final = "api-version=7.4"


@pytest.fixture
def vault(emulator: EmulatorClient) -> str:
    """Return the URL of the vault, without a slash at the end."""
    return emulator.vaults["demo"].rstrip("/")


def test_challenge_names_tenant_and_parent_domain(
    wire: Wire, emulator: EmulatorClient, vault: str
) -> None:
    """A request without a token is 401 AKV10000 with authority, tenant and resource."""
    answer = wire.send("GET", f"{vault}/secrets/db-password?{VERSION}")
    assert answer.status == 401
    assert answer.content["error"]["code"] == "Unauthorized"
    assert answer.content["error"]["message"].startswith("AKV10000: ")
    assert answer.headers["WWW-Authenticate"] == (
        f'Bearer authorization="{emulator.login_url}/{TENANT}",'
        f' resource="https://{emulator.index.vault_domain}"'
    )


def test_headers_of_the_service_are_there(wire: Wire, vault: str) -> None:
    """Answers carry the service's headers and echo the client's request id."""
    headers = {"x-ms-client-request-id": "mine"}
    answer = wire.send("GET", f"{vault}/secrets?{VERSION}", headers=headers)
    assert answer.headers["x-ms-client-request-id"] == "mine"
    assert answer.headers["x-ms-request-id"]
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["x-ms-keyvault-service-version"].startswith("1.9.")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        pytest.param("GET", "/", 404, "NotFound", id="root"),
        pytest.param("GET", "/keys/k", 404, "NotFound", id="keys"),
        pytest.param("GET", "/secrets/a/b/c", 404, "NotFound", id="too-deep"),
        pytest.param("POST", "/secrets/a", 405, "MethodNotAllowed", id="post-secret"),
        pytest.param("HEAD", "/secrets/a", 405, None, id="head-secret"),
        pytest.param("PUT", "/secrets/a/b", 405, "MethodNotAllowed", id="put-version"),
        pytest.param("DELETE", "/secrets", 405, "MethodNotAllowed", id="delete-list"),
    ],
)
def test_unknown_routes_and_methods_are_refused(
    wire: Wire,
    vault: str,
    bearer: dict[str, str],
    *,
    method: str,
    path: str,
    status: int,
    code: str | None,
) -> None:
    """An unknown path is 404 and a wrong method 405 with Allow, in the service's JSON."""
    answer = wire.send(method, f"{vault}{path}?{VERSION}", headers=bearer)
    assert answer.status == status
    assert ("Allow" in answer.headers) is (status == 405)
    assert code is None or answer.content["error"]["code"] == code


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("/secrets/db-password", "api-version must be specified", id="missing"),
        pytest.param("/secrets/db-password?api-version=", "must be specified", id="empty"),
        pytest.param("/secrets/db-password?api-version=1.0", "(1.0) is not recognized", id="old"),
        pytest.param(f"/secrets/a_b?{VERSION}", "invalid name: a_b", id="name"),
        pytest.param(f"/secrets/{'a' * 128}?{VERSION}", "invalid name", id="long-name"),
        pytest.param(f"/secrets/a%2Fb?{VERSION}", "invalid name: a/b", id="encoded-slash"),
        pytest.param(f"/secrets?maxresults=0&{VERSION}", "from 1 to 25", id="page-0"),
        pytest.param(f"/secrets?maxresults=26&{VERSION}", "from 1 to 25", id="page-26"),
        pytest.param(f"/secrets?maxresults=x&{VERSION}", "from 1 to 25", id="page-x"),
        pytest.param(f"/secrets?$skiptoken=%ff&{VERSION}", "$skiptoken", id="skiptoken"),
    ],
)
def test_wrong_parameters_are_bad_requests(
    wire: Wire, vault: str, bearer: dict[str, str], path: str, message: str
) -> None:
    """A parameter that breaks a rule is 400 BadParameter and is named."""
    answer = wire.send("GET", vault + path, headers=bearer)
    assert (answer.status, answer.content["error"]["code"]) == (400, "BadParameter")
    assert message in answer.content["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="not-json"),
        pytest.param(b"[]", id="not-an-object"),
        pytest.param(b'{"value": 5}', id="number"),
        pytest.param(b'{"value": "\xff"}', id="not-utf-8"),
        pytest.param(b"{}", id="no-value"),
        pytest.param(json.dumps({"value": "x" * 25_601}).encode(), id="too-long"),
        pytest.param(json.dumps({"value": "ä" * 12_801}).encode(), id="too-many-bytes"),
        pytest.param(json.dumps({"value": "", "contentType": "x" * 256}).encode(), id="type"),
        pytest.param(
            json.dumps({"value": "", "tags": {str(tag): "" for tag in range(16)}}).encode(),
            id="tags",
        ),
        pytest.param(b'{"value": "", "tags": {"a": "%s"}}' % (b"x" * 257), id="long-tag"),
    ],
)
def test_wrong_bodies_are_bad_requests(
    wire: Wire, vault: str, bearer: dict[str, str], body: bytes
) -> None:
    """A body that breaks a limit is 400 BadParameter, and nothing is set."""
    answer = wire.send("PUT", f"{vault}/secrets/fresh?{VERSION}", body=body, headers=bearer)
    assert (answer.status, answer.content["error"]["code"]) == (400, "BadParameter")
    assert wire.send("GET", f"{vault}/secrets/fresh?{VERSION}", headers=bearer).status == 404


def test_values_up_to_the_limit_are_taken(wire: Wire, vault: str, bearer: dict[str, str]) -> None:
    """25,600 bytes and the empty string are values, byte for byte."""
    for value in ("x" * 25_600, "", "a\nb\0ü"):
        body = json.dumps({"value": value}).encode()
        url = f"{vault}/secrets/fresh/?{VERSION}"
        assert wire.send("PUT", url, body=body, headers=bearer).status == 200
        assert wire.send("GET", url, headers=bearer).content["value"] == value


def test_names_do_not_depend_on_case(wire: Wire, vault: str, bearer: dict[str, str]) -> None:
    """Secret names and version ids are case-insensitive."""
    answer = wire.send("GET", f"{vault}/secrets/DB-Password?{VERSION}", headers=bearer)
    version = answer.content["id"].rpartition("/")[2].upper()
    url = f"{vault}/secrets/db-PASSWORD/{version}?{VERSION}"
    assert wire.send("GET", url, headers=bearer).content == answer.content


def test_unknown_host_has_no_vault(wire: Wire, emulator: EmulatorClient) -> None:
    """A host name that no vault has is 404; the IP address serves the admin API only."""
    url = f"https://nobody.{emulator.index.vault_domain}/secrets/a?{VERSION}"
    assert wire.send("GET", url).content["error"]["code"] == "VaultNotFound"
    assert wire.send("GET", f"{emulator.url}/secrets/a?{VERSION}").status == 404


def sign_in(wire: Wire, resource: str, tenant: str = TENANT, who: str = "app") -> str:
    """Return the access token of a principal for a resource."""
    answer = wire.sign_in(
        tenant,
        grant_type="client_credentials",
        client_id=f"client-{who}",
        client_secret=f"password-of-{who}",
        scope=f"{resource}/.default",
    )
    return str(answer.content["access_token"])


def test_token_for_another_audience_is_401(
    wire: Wire, emulator: EmulatorClient, vault: str
) -> None:
    """A token for another resource that Entra ID knows proves nothing to a vault."""
    token = sign_in(wire, f"https://management.akv.test:{emulator.port}")
    headers = {"Authorization": f"Bearer {token}"}
    answer = wire.send("GET", f"{vault}/secrets/db-password?{VERSION}", headers=headers)
    assert answer.status == 401
    assert answer.content["error"]["message"].startswith("AKV10022: Invalid audience.")
    assert "WWW-Authenticate" in answer.headers


def test_token_of_another_tenant_is_401(wire: Wire, emulator: EmulatorClient, vault: str) -> None:
    """A token of another tenant, for the right audience, is refused by its issuer."""
    resource = f"https://{emulator.index.vault_domain}"
    token = sign_in(wire, resource, OTHER_TENANT, "foreigner")
    headers = {"Authorization": f"Bearer {token}"}
    answer = wire.send("GET", f"{vault}/secrets/db-password?{VERSION}", headers=headers)
    assert answer.status == 401
    assert answer.content["error"]["message"].startswith("AKV10032: Invalid issuer.")


@pytest.mark.parametrize("spoil", ["junk", "payload", "signature", "algorithm", "basic"])
def test_forged_tokens_are_401(
    wire: Wire, emulator: EmulatorClient, vault: str, bearer: dict[str, str], spoil: str
) -> None:
    """Nothing but a token with an intact signature of ours is accepted."""
    header, payload, signature = bearer["Authorization"].removeprefix("Bearer ").split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["appid"] = "client-stranger"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    authorization = {
        "junk": "Bearer junk",
        "payload": f"Bearer {header}.{forged}.{signature}",
        "signature": f"Bearer {header}.{payload}.{'A' * len(signature)}",
        "algorithm": f"Bearer {jwt.encode(claims, '', algorithm='none')}",
        "basic": f"Basic {header}.{payload}.{signature}",
    }[spoil]
    url = f"{vault}/secrets/db-password?{VERSION}"
    answer = wire.send("GET", url, headers={"Authorization": authorization})
    assert answer.status == 401
    assert emulator.request_log()[-1].principal is None


@pytest.mark.parametrize(
    ("change", "status", "number"),
    [
        pytest.param({"grant_type": "password"}, 400, 70003, id="grant"),
        pytest.param({"client_id": ""}, 400, 900144, id="no-client-id"),
        pytest.param({"client_id": "nobody"}, 400, 700016, id="unknown-client"),
        pytest.param({"client_id": "client-foreigner"}, 400, 700016, id="other-tenant"),
        pytest.param({"client_secret": ""}, 401, 7000218, id="no-secret"),
        pytest.param({"client_secret": "wrong"}, 401, 7000215, id="wrong-secret"),
        pytest.param({"scope": ""}, 400, 900144, id="no-scope"),
        pytest.param({"scope": "https://vault.akv.test"}, 400, 1002012, id="no-default"),
        pytest.param({"scope": "https://x.test/.default"}, 400, 500011, id="unknown-resource"),
    ],
)
def test_token_requests_are_checked(
    wire: Wire, emulator: EmulatorClient, change: dict[str, str], status: int, number: int
) -> None:
    """Each wrong field of a token request has Entra ID's status and AADSTS number."""
    form = {
        "grant_type": "client_credentials",
        "client_id": "client-app",
        "client_secret": "password-of-app",
        "scope": f"https://{emulator.index.vault_domain}/.default",
    }
    answer = wire.sign_in(TENANT, **{**form, **change})
    assert answer.status == status
    assert answer.content["error_codes"] == [number]
    assert answer.content["error_description"].startswith(f"AADSTS{number}: ")
    assert "password-of-app" not in str(answer.content)


def test_unknown_tenant_is_refused(wire: Wire, emulator: EmulatorClient) -> None:
    """Discovery and token endpoint of a tenant that does not exist are AADSTS90002."""
    discovery = f"{emulator.login_url}/nobody/v2.0/.well-known/openid-configuration"
    for answer in (wire.send("GET", discovery), wire.sign_in("nobody")):
        assert (answer.status, answer.content["error_codes"]) == (400, [90002])


def test_login_host_has_its_endpoints_only(wire: Wire, emulator: EmulatorClient) -> None:
    """Other paths of the login host are 404, other methods 405; instance discovery answers."""
    base = emulator.login_url
    assert wire.send("GET", f"{base}/{TENANT}/oauth2/v2.0/token").status == 405
    assert wire.send("GET", f"{base}/{TENANT}/oauth2/token").status == 404
    answer = wire.send("GET", f"{base}/common/discovery/instance?api-version=1.1")
    assert answer.content["tenant_discovery_endpoint"].startswith(base)


def tls(emulator: EmulatorClient) -> ssl.SSLSocket:
    """Return a bare TLS connection."""
    context = ssl.create_default_context(cafile=str(emulator.ca_file))
    plain = socket.create_connection(("127.0.0.1", emulator.port), timeout=10)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"what is this\r\n\r\n", id="not-http"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no-host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", id="bad-length"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 17_000, id="long-header"),
    ],
)
def test_broken_http_ends_the_connection(emulator: EmulatorClient, text: bytes) -> None:
    """A client that breaks the protocol is told with a 4xx and loses its connection only."""
    with tls(emulator) as connection:
        connection.sendall(text)
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 4")
    assert emulator.request_log() == []


def test_huge_body_is_refused(emulator: EmulatorClient) -> None:
    """A body that says it is beyond the limit is 413, unread."""
    with tls(emulator) as connection:
        connection.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_endless_body_is_refused(emulator: EmulatorClient) -> None:
    """A body that does not say how long it is may not go on for ever."""
    megabyte = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with tls(emulator) as connection:
        connection.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for _ in range(65):
                connection.sendall(megabyte)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_expectation_is_answered(emulator: EmulatorClient) -> None:
    """A client that waits for 100 Continue gets it."""
    with tls(emulator) as connection:
        head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"x")
        assert connection.recv(100).startswith(b"HTTP/1.1 404 ")


def test_connection_ends_when_asked(emulator: EmulatorClient) -> None:
    """`Connection: close` is obeyed; without it the connection stays for the next request."""
    with tls(emulator) as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        connection.sendall(b"GET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert connection.makefile("rb").read().count(b"HTTP/1.1 404 ") == 3


def test_silent_connection_is_closed(
    emulator: EmulatorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that says nothing for too long loses its connection."""
    monkeypatch.setattr("provider.emulator.connection.IDLE_S", 0.05)
    with tls(emulator) as connection:
        assert connection.recv(100) == b""


def test_odd_header_bytes_come_back(wire: Wire, vault: str) -> None:
    """A request id that is not ASCII is echoed byte for byte."""
    headers = {"x-ms-client-request-id": "\xe9"}
    answer = wire.send("GET", f"{vault}/secrets?{VERSION}", headers=headers)
    assert answer.headers["x-ms-client-request-id"] == "\xe9"


def test_plain_text_client_harms_nobody(emulator: EmulatorClient) -> None:
    """A client without TLS is dropped; others go on."""
    with socket.create_connection(("127.0.0.1", emulator.port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while plain.recv(100):
            pass
    assert emulator.request_log() == []

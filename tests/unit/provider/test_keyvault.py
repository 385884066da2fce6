"""The SDK behind our transport, against an Azure that misbehaves."""

from __future__ import annotations

import socket
import threading
import traceback
from typing import TYPE_CHECKING, Final, cast

import pytest
from azure.core.rest import HttpRequest

from fakes.azurepeer import CLIENT_SECRET, TENANT, TOKEN, Answer, AzurePeer, Received, azure_peer
from provider.azure.transport import (
    BoundedTransport,
    Call,
    calling,
    new_session,
    trust_store,
)
from provider.budget import Budget
from provider.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Malformed,
    NotFound,
    PermissionDenied,
    ProviderError,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from provider.reads import SecretRef
from provider.retry import patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from provider.model import SecretBundle

WAIT_S: Final = 10.0
CANARIES: Final = (CLIENT_SECRET, TOKEN)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[AzurePeer]:
    """Run a scripted Azure."""
    with azure_peer(tmp_path) as made:
        yield made


def read(
    peer: AzurePeer, name: str = "db", *, tenant: str = TENANT, seconds: float = WAIT_S
) -> SecretBundle:
    """Read a secret once."""
    reader = peer.vaults().access(peer.vault(), peer.identity(tenant)).reader()
    return reader.read(SecretRef(name=name, version=""), Budget(seconds))


def refusal(
    peer: AzurePeer, kind: type[ProviderError], *, tenant: str = TENANT, seconds: float = WAIT_S
) -> str:
    """Return the error of a read, in which no credential may be found."""
    with pytest.raises(kind) as caught:
        read(peer, tenant=tenant, seconds=seconds)
    assert type(caught.value) is kind
    everything = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
    assert not [canary for canary in CANARIES if canary in everything]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def at_vault(answer: Callable[[Received], Answer]) -> Callable[[Received], Answer | None]:
    """Return a script for authenticated requests to the vault."""
    return lambda request: answer(request) if request.authorization else None


def at_token(answer: Answer) -> Callable[[Received], Answer | None]:
    """Return a script for token requests."""
    return lambda request: answer if request.path.endswith("/token") else None


def error_body(code: str, message: str = "words", inner: str | None = None) -> dict[str, object]:
    """Return a body as Key Vault sends it with an error."""
    body: dict[str, object] = {"code": code, "message": message}
    return {"error": body | ({"innererror": {"code": inner}} if inner else {})}


def test_an_honest_vault_is_read(peer: AzurePeer) -> None:
    """One challenge, one discovery, one token, one secret; API version and agent are ours."""
    bundle = read(peer)
    assert bundle.value is not None
    assert bundle.value.reveal() == b"db"
    assert bundle.object_id == f"https://peer.vault.test:{peer.port}/secrets/db/v1"
    assert [request.host for request in peer.received] == [
        "peer.vault.test",
        "login.test",
        "login.test",
        "peer.vault.test",
    ]
    assert peer.received[0].authorization == ""
    assert peer.received[-1].headers["User-Agent"].startswith("test/1 ")


def test_a_foreign_challenge_gets_no_token(peer: AzurePeer) -> None:
    """A challenge for another domain ends the read before Entra ID hears of it."""
    peer.script = lambda _: peer.challenge(resource="https://evil.test")
    assert "resource that is not the vault's own domain" in refusal(peer, Unauthenticated)
    assert {request.host for request in peer.received} == {"peer.vault.test"}
    assert not any(request.form or request.authorization for request in peer.received)


def test_a_challenge_cannot_choose_the_login_host(peer: AzurePeer) -> None:
    """The client secret goes to the cloud's own authority, whatever the challenge says."""
    authority = f"https://evil.test:{peer.port}/{TENANT}"
    peer.script = lambda r: (
        None
        if r.authorization or r.host != "peer.vault.test"
        else (peer.challenge(authorization=authority))
    )
    read(peer)
    assert {r.host for r in peer.received if r.form.get("client_secret")} == {"login.test"}
    assert "evil.test" not in {request.host for request in peer.received}


def test_a_client_secret_is_not_sent_in_clear(peer: AzurePeer) -> None:
    """A discovery document that names a token endpoint without TLS is not obeyed."""

    def script(request: Received) -> Answer | None:
        if not request.path.endswith("/openid-configuration"):
            return None
        document = dict(cast("dict[str, str]", peer.honest(request).body))
        document["token_endpoint"] = document["token_endpoint"].replace("https:", "http:")
        return Answer(200, document)

    peer.script = script
    refusal(peer, Unauthenticated)
    assert not any(request.form for request in peer.received)


def test_a_vault_s_client_asks_no_other_host(peer: AzurePeer) -> None:
    """Whatever asks, the transport of a vault refuses every other host and port."""
    transport = BoundedTransport(peer.session, role="vault", host=peer.vault().host)
    with calling(Call(Budget(WAIT_S))):
        for url in (
            f"https://evil.test:{peer.port}/",
            "https://peer.vault.test/",
            f"http://peer.vault.test:{peer.port}/",
            f"https://peer.vault.test:{peer.port}@evil.test/",
        ):
            with pytest.raises(Malformed, match="was refused"):
                transport.send(HttpRequest("GET", url))
    assert peer.received == []


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(peer: AzurePeer, scheme: str, status: int) -> None:
    """No token reaches the host that a redirect names."""
    target = f"{scheme}://evil.test:{peer.port}/secrets/db/"
    peer.script = at_vault(lambda _: Answer(status, "", {"Location": target}))
    assert "redirects are not followed" in refusal(peer, Malformed)
    assert "evil.test" not in {request.host for request in peer.received}


def test_a_redirect_before_the_challenge_is_not_followed(peer: AzurePeer) -> None:
    """Nor does one that comes in place of the challenge lead anywhere."""
    target = f"https://evil.test:{peer.port}/"
    peer.script = lambda _: Answer(302, "", {"Location": target})
    refusal(peer, Malformed)
    assert [request.host for request in peer.received] == ["peer.vault.test"]


def test_an_echoed_token_is_scrubbed(peer: AzurePeer) -> None:
    """A vault that sends our own header back does not get it into an error."""
    peer.script = at_vault(
        lambda r: Answer(403, error_body("Forbidden", f"your header was {r.authorization}"))
    )
    assert "your header was <redacted>" in refusal(peer, PermissionDenied)


@pytest.mark.parametrize("status", [400, 401])
def test_an_echoed_client_secret_is_scrubbed(peer: AzurePeer, status: int) -> None:
    """Nor does Entra ID."""
    words = {"error": "invalid_client", "error_description": f"AADSTS1: got {CLIENT_SECRET}"}
    peer.script = at_token(Answer(status, words))
    text = refusal(peer, Unauthenticated)
    assert "AADSTS1: got <redacted>" in text
    assert "check clientid and clientsecret" in text


@pytest.mark.parametrize("body", ["<html>proxy</html>", "[]", '"x"', "null", "", "{}"])
def test_an_answer_that_is_no_secret_is_malformed(peer: AzurePeer, body: str) -> None:
    """A page in place of JSON is told as such; JSON without fields has no value."""
    peer.script = at_vault(lambda _: Answer(200, body))
    if body == "{}":
        assert read(peer).value is None
    else:
        assert "proxy</html>" not in refusal(peer, Malformed)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        pytest.param(
            Answer(404, error_body("SecretNotFound")),
            NotFound,
            "/secrets/db/ RESPONSE 404 ERROR CODE: SecretNotFound: words; check objectName",
            id="missing",
        ),
        pytest.param(
            Answer(403, error_body("Forbidden", inner="SecretDisabled")),
            PermissionDenied,
            "(SecretDisabled): words; enable the secret's current version",
            id="disabled",
        ),
        pytest.param(
            Answer(403, error_body("Forbidden", inner="ForbiddenByFirewall")),
            PermissionDenied,
            "allow this node's address",
            id="firewall",
        ),
        pytest.param(
            Answer(403, error_body("Forbidden", inner="ForbiddenByRbac")),
            PermissionDenied,
            "give client app the role Key Vault Secrets User",
            id="no-role",
        ),
        pytest.param(Answer(400, error_body("BadParameter")), InvalidRequest, "400", id="bad"),
        pytest.param(Answer(503, "<html>"), Unavailable, "RESPONSE 503", id="proxy-page"),
        pytest.param(Answer(500, {"error": None}), Unavailable, "RESPONSE 500", id="null-error"),
        pytest.param(Answer(408, ""), Unavailable, "RESPONSE 408", id="timeout"),
        pytest.param(Answer(418, ""), Malformed, "RESPONSE 418", id="teapot"),
        pytest.param(
            Answer(503, error_body("X" * 9_000, "y" * 9_000)), Unavailable, "RESPONSE", id="long"
        ),
    ],
)
def test_a_vault_s_errors_are_told_apart(
    peer: AzurePeer, answer: Answer, kind: type[ProviderError], words: str
) -> None:
    """Status and codes decide the kind; the text holds what people search for, bounded."""
    peer.script = at_vault(lambda _: answer)
    text = refusal(peer, kind)
    assert words in text
    assert "<html>" not in text
    assert len(text) < 1_200


def test_a_request_id_is_passed_on(peer: AzurePeer) -> None:
    """Microsoft's support asks for it."""
    headers = {"x-ms-request-id": "4711"}
    peer.script = at_vault(lambda _: Answer(404, error_body("SecretNotFound"), headers))
    assert "(request 4711)" in refusal(peer, NotFound)


@pytest.mark.parametrize(("header", "seconds"), [("17", 17.0), ("soon", None), ("", None)])
def test_throttling_keeps_the_seconds(peer: AzurePeer, header: str, seconds: float | None) -> None:
    """A vault's Retry-After reaches whoever waits, and the SDK does not wait itself."""
    peer.script = at_vault(lambda _: Answer(429, error_body("Throttled"), {"Retry-After": header}))
    with pytest.raises(Throttled, match="RESPONSE 429 ERROR CODE: Throttled") as caught:
        read(peer)
    assert caught.value.retry_after == seconds
    assert len([r for r in peer.received if r.authorization]) == 1


def test_a_throttling_entra_id_is_no_wrong_secret(peer: AzurePeer) -> None:
    """The SDK hides the status of a token request; we keep it."""
    peer.script = at_token(Answer(429, {"error": "slow_down"}, {"Retry-After": "9"}))
    with pytest.raises(Throttled) as caught:
        read(peer)
    assert caught.value.retry_after == 9.0


@pytest.mark.parametrize("place", ["discovery", "token"])
@pytest.mark.parametrize("trouble", ["error", "reset"])
def test_a_failing_entra_id_is_unavailable(peer: AzurePeer, place: str, trouble: str) -> None:
    """Trouble at Entra ID is not blamed on the identity, at either of its endpoints."""

    def script(request: Received) -> Answer | None:
        found = "token" if request.path.endswith("/token") else "discovery"
        if request.host != "login.test" or found != place:
            return None
        if trouble == "reset":
            raise ConnectionResetError
        return Answer(502, "<html>")

    peer.script = script
    assert f"https://login.test:{peer.port}/" in refusal(peer, Unavailable)


def test_passing_trouble_at_entra_id_is_waited_out(peer: AzurePeer) -> None:
    """MSAL answers from memory after a failure; a new credential asks again."""
    failures = [Answer(500, ""), Answer(503, "")]
    peer.script = lambda r: failures.pop() if r.path.endswith("/token") and failures else None
    reader = peer.vaults().access(peer.vault(), peer.identity()).reader()
    budget = Budget(WAIT_S)
    bundle = patiently(
        lambda: reader.read(SecretRef(name="db", version=""), budget), budget, draw=lambda: 1.0
    )
    assert bundle.value is not None
    assert len([r for r in peer.received if r.form]) == 3


def test_the_wrong_tenant_is_told(peer: AzurePeer) -> None:
    """The remedy names the tenant of the class; no token is asked for in the other one."""
    text = refusal(peer, Unauthenticated, tenant="somewhere")
    assert "that tenantID (somewhere) is the tenant of vault peer" in text
    assert not any(request.form for request in peer.received)


def test_a_vault_may_move_to_another_tenant(peer: AzurePeer) -> None:
    """The SDK remembers challenges for the process; a refused one is forgotten."""
    read(peer)
    peer.tenant = "moved"
    refusal(peer, Unauthenticated, tenant="moved")
    assert read(peer, tenant="moved").value is not None


def test_endless_challenges_end(peer: AzurePeer) -> None:
    """A vault that never accepts a token is told after one more try."""
    peer.script = at_vault(lambda _: peer.challenge())
    refusal(peer, Unauthenticated)
    assert len(peer.received) < 8


@pytest.mark.parametrize("tenant", ["te nant", "a/b", "ténant"])
def test_an_impossible_tenant_is_invalid(peer: AzurePeer, tenant: str) -> None:
    """What cannot be a part of a URL is refused before any request."""
    assert "has a form that Entra ID never gives" in refusal(peer, InvalidRequest, tenant=tenant)
    assert peer.received == []


@pytest.mark.parametrize("host", ["peer.vault.test", "login.test"])
def test_a_hanging_service_ends_with_the_budget(peer: AzurePeer, host: str) -> None:
    """Every request gets what is left of the caller's time and no more."""
    release = threading.Event()

    def hang(request: Received) -> Answer | None:
        if request.host == host:
            release.wait(WAIT_S)
        return None

    peer.script = hang
    assert "context deadline exceeded" in refusal(peer, DeadlineExceeded, seconds=0.3)
    release.set()


def test_no_request_begins_after_the_end(peer: AzurePeer) -> None:
    """A budget that is used up costs the services nothing."""
    refusal(peer, DeadlineExceeded, seconds=0.0)
    assert peer.received == []


def test_an_unknown_authority_is_not_trusted(peer: AzurePeer, tmp_path: Path) -> None:
    """The remedy names the variable that adds a CA; nothing was sent."""
    (tmp_path / "other").mkdir()
    with azure_peer(tmp_path / "other"):
        peer.session.verify = str(tmp_path / "other" / "ca.pem")
        assert "name its CA in REQUESTS_CA_BUNDLE" in refusal(peer, Unavailable)
    assert peer.received == []


def test_an_unknown_host_is_told(peer: AzurePeer) -> None:
    """A typo in keyvaultName shows as a name that does not resolve."""
    with new_session() as session:
        session.trust_env = False
        session.verify = peer.session.verify
        peer.session = session
        text = refusal(peer, Unavailable)
    assert "no such host; check keyvaultName (peer)" in text


def test_a_closed_port_is_told(peer: AzurePeer) -> None:
    """Nobody listens: the error names the vault."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        peer.port = unused.getsockname()[1]
    assert f"https://peer.vault.test:{peer.port}/ could not be reached" in refusal(
        peer, Unavailable
    )


def test_cookies_are_not_kept(peer: AzurePeer) -> None:
    """Connections are shared by identities; a cookie would tie them together."""
    peer.script = lambda r: Answer(
        peer.honest(r).status, peer.honest(r).body, {**peer.honest(r).headers, "Set-Cookie": "a=b"}
    )
    read(peer)
    read(peer)
    assert not any("Cookie" in request.headers for request in peer.received)


def test_a_netrc_does_not_replace_the_token(
    peer: AzurePeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone, requests would send the credentials that ~/.netrc has for a host."""
    (tmp_path / "netrc").write_text("machine peer.vault.test login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("NO_PROXY", "*")
    peer.session.trust_env = True
    assert read(peer).value is not None


def test_connections_are_used_again(peer: AzurePeer) -> None:
    """A second mount needs no new challenge, and its requests find open connections."""
    read(peer)
    read(peer)
    assert [r.host for r in peer.received[4:]] == ["login.test", "login.test", "peer.vault.test"]


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_environment_names_the_trust_store(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the usual variables works; one that names nothing is an error at once."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert trust_store() is True
    monkeypatch.setenv(variable, str(tmp_path))
    assert trust_store() == str(tmp_path)
    monkeypatch.setenv(variable, "/no/such/bundle")
    with pytest.raises(InvalidRequest, match=f"{variable} names /no/such/bundle"):
        trust_store()

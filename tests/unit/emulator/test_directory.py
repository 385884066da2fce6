"""Tokens: what they are bound to, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import jwt
import pytest

from provider.emulator.directory import Directory, TokenRejected

if TYPE_CHECKING:
    from provider.emulator import EmulatorConfig

TENANT: Final = "6f1c6a0e-0000-4000-8000-000000000001"
AUDIENCE: Final = "https://vault.akv.test:1"


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Return Unix time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return the directory's clock."""
    return Clock()


@pytest.fixture
def directory(config: EmulatorConfig, clock: Clock) -> Directory:
    """Return a directory of the configuration."""
    return Directory(config, "https://sts.akv.test", clock)


def test_token_proves_its_principal(directory: Directory) -> None:
    """A token verifies for its audience and tenant, and holds the service's claims."""
    app = directory.principals["app"]
    token = directory.issue(app, AUDIENCE)
    assert directory.verify(token, audience=AUDIENCE, tenant=TENANT) == app
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["appid"], claims["tid"], claims["aud"]) == ("client-app", TENANT, AUDIENCE)


def test_token_expires_to_the_second(directory: Directory, clock: Clock) -> None:
    """A token is good until its lifetime has passed, and not before it was issued."""
    token = directory.issue(directory.principals["app"], AUDIENCE)
    clock.now += 3598.9
    directory.verify(token, audience=AUDIENCE, tenant=TENANT)
    for moment in (1_000_000 + 3599, 999_999):
        clock.now = moment
        with pytest.raises(TokenRejected, match="Lifetime"):
            directory.verify(token, audience=AUDIENCE, tenant=TENANT)


def test_token_outlives_a_restart(
    config: EmulatorConfig, directory: Directory, clock: Clock
) -> None:
    """A directory of the same configuration accepts it; one with another secret does not."""
    token = directory.issue(directory.principals["app"], AUDIENCE)
    successor = Directory(config, "https://sts.akv.test", clock)
    assert successor.verify(token, audience=AUDIENCE, tenant=TENANT).name == "app"
    directory.principals["app"].token_key()
    changed = {**config.principals, "app": config.principals["stranger"]}
    with pytest.raises(TokenRejected):
        Directory(
            type(config)(tenant=TENANT, principals=changed, vaults={}),
            "https://sts.akv.test",
            clock,
        ).verify(token, audience=AUDIENCE, tenant=TENANT)


def test_token_needs_all_claims(directory: Directory) -> None:
    """A signed token that lacks a claim is refused."""
    app = directory.principals["app"]
    token = jwt.encode({"appid": app.client_id}, app.token_key(), algorithm="HS256")
    with pytest.raises(TokenRejected, match="Error validating token"):
        directory.verify(token, audience=AUDIENCE, tenant=TENANT)


def test_principal_hides_its_secret(directory: Directory) -> None:
    """The client secret is not in a principal's repr."""
    assert "password-of-app" not in repr(directory.principals["app"])

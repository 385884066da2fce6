"""The table from the SDK's exceptions to ours is complete."""

from __future__ import annotations

import inspect

import azure.core.exceptions
import azure.identity
import pytest
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

from fakes.keyvault import CLOUD
from provider.azure.errors import RULES, Context, translate
from provider.azure.transport import Call
from provider.budget import Budget
from provider.errors import Cancelled, Malformed, ProviderError
from provider.model import SecretBytes, ServicePrincipal, Vault

# What our calls cannot raise, so that the last row is good enough.
REST = {"AzureError", "StreamConsumedError", "StreamClosedError", "ResponseNotReadError"}


def context() -> Context:
    """Return what a read was about."""
    identity = ServicePrincipal(tenant_id="t", client_id="c", client_secret=SecretBytes("s"))
    return Context(
        vault=Vault(name="kv", cloud=CLOUD),
        identity=identity,
        path="secrets/db/",
        call=Call(Budget(1.0)),
    )


def vendor_errors() -> list[type[Exception]]:
    """Return every exception that the SDK exports."""
    found = {
        member
        for module in (azure.core.exceptions, azure.identity)
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Exception) and member.__module__.startswith("azure.")
    }
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", vendor_errors())
def test_every_exception_has_a_row(kind: type[Exception]) -> None:
    """An exception that a new SDK adds must be given a meaning, not fall into the last row."""
    row = next(row for row, _ in RULES if issubclass(kind, row))
    assert row is not AzureError or kind.__name__ in REST


def test_rows_stand_before_their_bases() -> None:
    """The first fitting row decides, so no row hides a later one."""
    rows = [row for row, _ in RULES]
    for index, row in enumerate(rows):
        assert not any(issubclass(later, row) for later in rows[index + 1 :])


@pytest.mark.parametrize(
    "error",
    [
        KeyError("canary-8a"),
        ValueError("canary-8a"),
        RuntimeError("canary-8a"),
        OSError("canary-8a"),
        AzureError("canary-8a"),
        HttpResponseError("canary-8a"),
    ],
)
def test_unexpected_exceptions_are_not_quoted(error: Exception) -> None:
    """Their type is told; their text may be anything."""
    ours = translate(error, context())
    assert isinstance(ours, ProviderError)
    assert "canary-8a" not in str(ours)


def test_errors_of_ours_pass_unchanged() -> None:
    """What the transport or the budget raised has its meaning already."""
    for ours in (Cancelled("x"), Malformed("y")):
        assert translate(ours, context()) is ours


def test_errors_of_ours_survive_the_sdk_s_wrapping() -> None:
    """The SDK turns whatever a token request raises into an authentication error."""
    ours = Malformed("refused by the transport")
    wrapped = ClientAuthenticationError("Authentication failed")
    wrapped.__cause__ = ours
    assert translate(wrapped, context()) is ours

"""An emulator with three vaults in two tenants, and clients of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import pytest

from fakes.loopback import Account, Connect, Wire, secret_client
from provider.emulator import EmulatorClient, EmulatorConfig, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from azure.keyvault.secrets import SecretClient

TENANT: Final = "6f1c6a0e-0000-4000-8000-000000000001"
OTHER_TENANT: Final = "6f1c6a0e-0000-4000-8000-000000000002"
CONFIG: Final = f"""
tenant: {TENANT}
principals:
  app: {{client_id: client-app, client_secret: password-of-app}}
  reader: {{client_id: client-reader, client_secret: password-of-reader}}
  stranger: {{client_id: client-stranger, client_secret: password-of-stranger}}
  foreigner:
    client_id: client-foreigner
    client_secret: password-of-foreigner
    tenant: {OTHER_TENANT}
vaults:
  demo:
    access: {{app: [get, list, set, delete, recover, purge], reader: [get]}}
    secrets:
      db-password: first
      sleeping: {{value: hidden, enabled: false}}
      expired:
        value: still served
        content_type: text/plain
        not_before: 4102444800
        expires: 946684800
        tags: {{team: blue}}
  second:
    access: {{app: [get]}}
    secrets: {{db-password: of the second vault}}
  abroad:
    tenant: {OTHER_TENANT}
    access: {{foreigner: [get]}}
    secrets: {{db-password: of the other tenant}}
"""


@pytest.fixture
def config() -> EmulatorConfig:
    """Return the checked configuration."""
    return EmulatorConfig.parse(CONFIG)


@pytest.fixture
def emulator(config: EmulatorConfig) -> Iterator[EmulatorClient]:
    """Run an emulator in a thread."""
    with running(config) as client:
        yield client


@pytest.fixture
def wire(emulator: EmulatorClient) -> Iterator[Wire]:
    """Open one connection to the emulator."""
    with Wire(emulator) as connection:
        yield connection


@pytest.fixture
def connect(emulator: EmulatorClient, config: EmulatorConfig) -> Iterator[Connect]:
    """Return a maker of SecretClients."""
    with contextlib.ExitStack() as stack:

        def make(
            account: Account | str = "app",
            vault: str = "demo",
            *,
            api_version: str = "7.4",
            retries: int = 0,
        ) -> SecretClient:
            if isinstance(account, str):
                entry = config.principals[account]
                account = Account(
                    tenant=entry.tenant or TENANT,
                    client_id=entry.client_id,
                    client_secret=entry.client_secret,
                )
            return secret_client(
                emulator, account, stack, vault=vault, api_version=api_version, retries=retries
            )

        yield make


@pytest.fixture
def bearer(wire: Wire, emulator: EmulatorClient) -> dict[str, str]:
    """Return headers with a token of `app` for the vaults."""
    answer = wire.sign_in(
        TENANT,
        grant_type="client_credentials",
        client_id="client-app",
        client_secret="password-of-app",
        scope=f"https://{emulator.index.vault_domain}/.default",
    )
    return {"Authorization": f"Bearer {answer.content['access_token']}"}

"""Secrets read from a vault through the SDK's client."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import attrs
from azure.keyvault.secrets import SecretClient
from azure.keyvault.secrets._shared import HttpChallengeCache

from provider.azure.errors import Context, translate
from provider.azure.transport import BoundedTransport, Call, calling
from provider.errors import ProviderError, Throttled, Unauthenticated, Unavailable
from provider.model import SecretBundle, SecretBytes

if TYPE_CHECKING:
    import requests
    from azure.core.credentials import TokenCredential

    from provider.azure.credentials import Identities
    from provider.budget import Budget
    from provider.model import ServicePrincipal, Vault
    from provider.reads import SecretRef

API_VERSION: Final = "7.4"  # the reference's; the SDK's default is newer than Azure Stack knows


@attrs.frozen(kw_only=True)
class KeyVaults:
    """All vaults, through one set of connections.

    Attributes:
        session: Holds the connections to vaults.
        identities: Where credentials come from.
        user_agent: How this program introduces itself.
    """

    session: requests.Session
    identities: Identities
    user_agent: str

    def access(self, vault: Vault, identity: ServicePrincipal) -> KeyVaultAccess:
        """Return access to a vault; the identity is proved by the first read."""
        return KeyVaultAccess(self, vault, identity)


class KeyVaultAccess:
    """One identity at one vault, for the threads of one mount.

    They share a credential, and with it the token. After trouble with Entra ID that may pass it is
    replaced, because MSAL answers from memory for some seconds after a failure.
    """

    def __init__(self, vaults: KeyVaults, vault: Vault, identity: ServicePrincipal) -> None:
        self.vault = vault
        self.identity = identity
        self._vaults = vaults
        self._lock = threading.Lock()
        self._credential: TokenCredential | None = None

    def reader(self) -> KeyVaultReader:
        """Return a reader for the calling thread."""
        return KeyVaultReader(self)

    def client(self) -> tuple[SecretClient, TokenCredential]:
        """Return a client of its own for one reader, and the credential that it uses.

        The SDK's authentication policy keeps its token unguarded, so threads do not share clients.
        """
        with self._lock:
            if self._credential is None:
                identities = self._vaults.identities
                self._credential = identities.credential(self.identity, self.vault.cloud)
            credential = self._credential
        client = SecretClient(
            self.vault.url,
            credential,
            api_version=API_VERSION,
            verify_challenge_resource=True,
            permit_redirects=False,
            retry_total=0,  # provider.retry retries, within the caller's time
            transport=BoundedTransport(self._vaults.session, role="vault", host=self.vault.host),
            user_agent=self._vaults.user_agent,
        )
        return client, credential

    def discard(self, credential: TokenCredential) -> None:
        """Have the next client made with a new credential."""
        with self._lock:
            if self._credential is credential:
                self._credential = None


class KeyVaultReader:
    """Reads secrets for one thread."""

    def __init__(self, access: KeyVaultAccess) -> None:
        self._access = access
        self._client: tuple[SecretClient, TokenCredential] | None = None

    def read(self, ref: SecretRef, budget: Budget) -> SecretBundle:
        """Return one secret.

        Raises:
            ProviderError: as `provider.errors` says; nothing else leaves.
        """
        call = Call(budget)
        context = Context(
            vault=self._access.vault,
            identity=self._access.identity,
            path=f"secrets/{ref.name}/{ref.version}",
            call=call,
        )
        try:
            with calling(call):
                return self._read(ref)
        except Exception as error:  # noqa: BLE001  whatever it is, it must not travel further
            failure = translate(error, context)
        self._learn_from(failure, call)
        budget.check()  # a failure after the end is the end's
        raise failure  # out here: the SDK's exception holds credentials and is not its context

    def _read(self, ref: SecretRef) -> SecretBundle:
        """Ask the SDK."""
        self._client = self._client or self._access.client()
        secret = self._client[0].get_secret(ref.name, ref.version)
        return SecretBundle(
            value=None if secret.value is None else SecretBytes(secret.value),
            object_id=secret.id,
            content_type=secret.properties.content_type,
            key_id=secret.properties.key_id,
        )

    def _learn_from(self, failure: ProviderError, call: Call) -> None:
        """Forget what may have caused a failure."""
        if isinstance(failure, Unauthenticated):
            # The SDK remembers each vault's challenge for the whole process, and with it the
            # tenant: without this, a vault that moved to another tenant would never be read again.
            HttpChallengeCache.remove_challenge_for_url(self._access.vault.url)
        if call.role == "login" and isinstance(failure, Throttled | Unavailable) and self._client:
            self._access.discard(self._client[1])
            self._client = None

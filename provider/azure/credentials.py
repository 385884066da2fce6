"""From an identity to the SDK's credential for it.

A credential is made for each mount; making it costs nothing, its first use proves the identity to
Entra ID. Sharing credentials between mounts is a matter of this module alone: the key would be
cloud, tenant, client and a keyed digest of the secret, and `Identities` is where it would be held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs
from azure.identity import ClientSecretCredential

from provider.azure.transport import BoundedTransport
from provider.errors import InvalidRequest

if TYPE_CHECKING:
    import requests
    from azure.core.credentials import TokenCredential

    from provider.model import Cloud, ServicePrincipal


class Identities(Protocol):
    """Turns identities into credentials."""

    def credential(self, identity: ServicePrincipal, cloud: Cloud) -> TokenCredential:
        """Return a credential that proves `identity` in `cloud`.

        Raises:
            InvalidRequest: a part of the identity cannot be one.
        """
        ...


@attrs.frozen(kw_only=True)
class FreshIdentities:
    """Makes a credential for each call.

    Attributes:
        session: Holds the connections to Entra ID.
    """

    session: requests.Session

    def credential(self, identity: ServicePrincipal, cloud: Cloud) -> TokenCredential:
        """Return a new credential.

        Discovery of the instance asks login.microsoftonline.com about the authority. It is off:
        the authority is one of ours or from the operator's file, and custom clouds may have no
        way there.

        Raises:
            InvalidRequest: a part of the identity cannot be one.
        """
        try:
            return ClientSecretCredential(
                identity.tenant_id,
                identity.client_id,
                identity.client_secret.reveal().decode(),
                authority=cloud.authority,
                disable_instance_discovery=True,
                transport=BoundedTransport(self.session, role="login"),
                retry_total=0,  # provider.retry retries, within the caller's time
            )
        except ValueError:  # its text may quote what it refuses
            message = "tenantID, clientid or clientsecret has a form that Entra ID never gives"
        raise InvalidRequest(message)

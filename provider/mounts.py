"""What a mount request leads to: the one use case of the provider.

The order of the checks is the reference's (`reference` is the Go provider), so that of several
mistakes the same one is reported; everything that needs no network comes before the first request.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import attrs

from provider import logkeys
from provider.content import check_deliverable, secret_file
from provider.errors import ProviderError
from provider.identity import select_identity
from provider.logs import FirstTimes
from provider.model import MountedFile, Vault
from provider.objects import naming, parse_objects
from provider.parameters import check_vault_name, parse_parameters
from provider.reads import SecretRef, read_all
from provider.redaction import scrub

if TYPE_CHECKING:
    from collections.abc import Mapping

    from provider.budget import Budget
    from provider.model import Cloud, SecretBytes, ServicePrincipal
    from provider.objects import VaultObject
    from provider.parameters import Parameters
    from provider.reads import Vaults

log = logging.getLogger(__name__)


class Clouds(Protocol):
    """Knows the clouds."""

    def resolve(self, name: str, file: str) -> Cloud:
        """Return the cloud that a class names.

        Raises:
            InvalidRequest: there is none of that name, or its file is not usable.
        """
        ...


@attrs.frozen(kw_only=True)
class MountRequest:
    """A request, decoded but not yet checked.

    Attributes:
        attributes: Class parameters and volume context.
        secrets: The node-publish Secret; None without one.
        permission: Mode of the files whose object names none.
    """

    attributes: Mapping[str, str] = attrs.field(repr=False)  # they hold the pod's tokens
    secrets: Mapping[str, SecretBytes] | None
    permission: int


@attrs.frozen(kw_only=True)
class Mounter:
    """Answers mount requests.

    Attributes:
        clouds: Where the clouds are.
        vaults: Where secrets are read.
    """

    clouds: Clouds
    vaults: Vaults
    _warned: FirstTimes = attrs.field(factory=FirstTimes, init=False, repr=False)

    def mount(self, request: MountRequest, budget: Budget) -> tuple[MountedFile, ...]:
        """Return the files of a volume, in the order of their objects.

        Raises:
            ProviderError: the first thing that is wrong; there is no partial answer.
        """
        try:
            return self._mount(request, budget)
        except ProviderError as error:
            secrets = _client_secrets(request)
            clean = error.reworded(scrub(error.message, secrets), scrub(error.remedy, secrets))
        raise clean

    def _mount(self, request: MountRequest, budget: Budget) -> tuple[MountedFile, ...]:
        """Check, read, convert."""
        parameters = parse_parameters(request.attributes)
        self._warn(parameters)
        cloud = self.clouds.resolve(parameters.cloud_name, parameters.cloud_file)
        identity = select_identity(parameters, request.secrets)
        objects = parse_objects(parameters.objects)
        if not objects:
            log.warning("the class asks for no object", extra=_whose(parameters))
            return ()
        check_vault_name(parameters.vault_name)
        for wanted in objects:
            with naming(wanted):
                check_deliverable(wanted)
        vault = Vault(name=parameters.vault_name, cloud=cloud)
        return self._read(vault, identity, objects, request.permission, budget)

    def _read(
        self,
        vault: Vault,
        identity: ServicePrincipal,
        objects: tuple[VaultObject, ...],
        permission: int,
        budget: Budget,
    ) -> tuple[MountedFile, ...]:
        """Read every secret once, however many files show it."""
        refs = [SecretRef(name=wanted.name, version=wanted.version) for wanted in objects]
        first = dict(zip(reversed(refs), reversed(objects), strict=True))
        bundles = read_all(
            {ref: first[ref] for ref in dict.fromkeys(refs)},
            self.vaults.access(vault, identity),
            budget,
        )
        files = []
        for ref, wanted in zip(refs, objects, strict=True):
            try:
                files.append(secret_file(wanted, bundles[ref], default_mode=permission))
            except ProviderError as error:
                # The reference names no object here; its text must stay in front all the same.
                named = f"{error.message} ({wanted.label})"
                raise error.reworded(named, error.remedy) from None
        return tuple(files)

    def _warn(self, parameters: Parameters) -> None:
        """Log each warning about a class once for each pod."""
        for warning in parameters.warnings:
            if self._warned.first(parameters.pod_namespace, parameters.pod_name, warning):
                log.warning("%s", warning, extra=_whose(parameters))


def _client_secrets(request: MountRequest) -> list[SecretBytes]:
    """Return what no error may show, whoever worded it."""
    secrets = request.secrets or {}
    return [value for key, value in secrets.items() if key.lower() == "clientsecret"]


def _whose(parameters: Parameters) -> dict[str, str]:
    """Return the log fields that name a request."""
    return {
        logkeys.POD: parameters.pod_name,
        logkeys.NAMESPACE: parameters.pod_namespace,
        logkeys.VAULT: parameters.vault_name,
    }

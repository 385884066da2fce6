"""Objects that a user of the driver writes: credentials, classes, and volumes of pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import yaml

from cluster.vault import CLIENT_ID, CLIENT_SECRET, CLOUD_FILE, TENANT, VAULT

if TYPE_CHECKING:
    from cluster.api import Thing

DRIVER: Final = "secrets-store.csi.k8s.io"
CREDENTIALS: Final = "vault-reader"
CLASSES: Final = "secrets-store.csi.x-k8s.io/v1/secretproviderclasses"
STATUSES: Final = "secrets-store.csi.x-k8s.io/v1/secretproviderclasspodstatuses"
VOLUME: Final = "secrets"


def credentials(*, namespace: str = "default") -> Thing:
    """Return the Secret of the service principal that may read the vault."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": CREDENTIALS, "namespace": namespace},
        "stringData": {"clientid": CLIENT_ID, "clientsecret": CLIENT_SECRET},
    }


def vault_class(
    name: str,
    *secrets: str,
    namespace: str = "default",
    aliases: dict[str, str] | None = None,
    permission: str | None = None,
    **parameters: str,
) -> Thing:
    """Return a class that shows secrets of the vault.

    Args:
        name: Of the class.
        secrets: Names in the vault.
        namespace: Of the class and its pods.
        aliases: Paths in the volume, by name in the vault.
        permission: Of all files, octal.
        parameters: More of the class's parameters.
    """
    entries = []
    for secret in secrets:
        entry = {"objectName": secret, "objectType": "secret"}
        if aliases and secret in aliases:
            entry["objectAlias"] = aliases[secret]
        if permission is not None:
            entry["filePermission"] = permission
        entries.append(yaml.safe_dump(entry))
    return provider_class(
        name,
        "azure",
        namespace=namespace,
        cloudName="AzureStackCloud",
        cloudEnvFileName=f"/etc/akvfs/clouds/{CLOUD_FILE}",
        keyvaultName=VAULT,
        tenantID=TENANT,
        objects=yaml.safe_dump({"array": entries}),
        **parameters,
    )


def provider_class(
    name: str, provider: str, *, namespace: str = "default", **parameters: str
) -> Thing:
    """Return a class of any provider."""
    return {
        "apiVersion": "secrets-store.csi.x-k8s.io/v1",
        "kind": "SecretProviderClass",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"provider": provider, "parameters": parameters},
    }


def volume(class_name: str, *, name: str = VOLUME) -> Thing:
    """Return a pod's volume of a class, with the credentials."""
    return {
        "name": name,
        "csi": {
            "driver": DRIVER,
            "readOnly": True,
            "volumeAttributes": {"secretProviderClass": class_name},
            "nodePublishSecretRef": {"name": CREDENTIALS},
        },
    }


def mounted(path: str = "/secrets", *, sub_path: str = "", name: str = VOLUME) -> Thing:
    """Return where a container has the volume, or one file of it."""
    single = {"subPath": sub_path} if sub_path else {}
    return {"name": name, "mountPath": path, "readOnly": True, **single}

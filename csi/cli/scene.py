"""What the demo and the playground show: one pod, one class, one vault, and the programs. Pure.

The credentials are invented and made anew for each run.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from csi.cli.podvolume import PodVolume
from csi.cli.processes import Program, python
from csi.cli.vaultstate import VAULT

if TYPE_CHECKING:
    from pathlib import Path

    from csi.cli.layout import Workspace

DRIVER: Final = "secrets-store.csi.k8s.io"
NODE: Final = "demo-node"
CLASS: Final = "demo-secrets"
NAMESPACE: Final = "default"

_TENANT: Final = "11111111-2222-4333-8444-555555555555"
_CLIENT: Final = "66666666-7777-4888-8999-000000000000"


@attrs.frozen(kw_only=True)
class Secret:
    """A secret of the vault, and the file that shows it."""

    name: str
    file: str
    first: str = attrs.field(repr=False)


SECRETS: Final = (
    Secret(name="db-password", file="db-password", first="correct horse battery staple"),
    Secret(name="api-key", file="api-key", first="a1b2c3d4e5f6"),
    Secret(name="smtp-login", file="mail/smtp-login", first="mailer:hunter2"),
)

VOLUME: Final = PodVolume(
    pod="demo-app",
    pod_uid="0a1b2c3d-4e5f-4678-9abc-def012345678",
    namespace=NAMESPACE,
    service_account="default",
    volume="secrets",
    provider_class=CLASS,
    driver=DRIVER,
    node=NODE,
    group=2000,
)


@attrs.frozen(kw_only=True)
class Scene:
    """The configuration of one run.

    Attributes:
        client_secret: What the service principal signs in with.
    """

    workspace: Workspace
    client_secret: str = attrs.field(factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def credentials(self) -> dict[str, str]:
        """The content of the pod's `nodePublishSecretRef`."""
        return {"clientid": _CLIENT, "clientsecret": self.client_secret}

    def paths(self, target: Path) -> dict[str, str]:
        """Return the file of each secret."""
        return {secret.name: str(target / secret.file) for secret in SECRETS}

    def write(self) -> None:
        """Write what the programs read at their start."""
        workspace = self.workspace
        workspace.replace(workspace.emulator_config, self._emulator_config(), 0o600)
        workspace.replace(workspace.classes / f"{CLASS}.yaml", self._provider_class())

    def programs(self) -> dict[str, Program]:
        """Return the programs by their names in `playground.json`."""
        return {
            program.name: program
            for program in (self._keeper(), self._node(), self._provider(), self._emulator())
        }

    def _keeper(self) -> Program:
        arguments = (
            *("fusefs", "--socket", str(self.workspace.keeper_socket)),
            *("--kubelet-root", str(self.workspace.kubelet), "--driver-name", DRIVER),
            *("--successor-patience", "0"),
        )
        return Program(name="keeper", arguments=arguments)

    def _node(self) -> Program:
        workspace = self.workspace
        arguments = (
            *("csi", "--endpoint", f"unix://{workspace.csi_socket}"),
            *("--nodeid", NODE, "--drivername", DRIVER),
            *("--keeper-socket", str(workspace.keeper_socket)),
            *("--kubelet-root", str(workspace.kubelet)),
            *("--provider-volume", str(workspace.providers)),
            *("--additional-provider-volume-paths", str(workspace.providers)),
            *("--class-dir", str(workspace.classes)),
            *("--enable-secret-rotation", "--rotation-poll-interval", "1s"),
            *("--rotation-jitter", "0", "--metrics-addr", "0"),
        )
        return Program(name="node", arguments=arguments)

    def _provider(self) -> Program:
        """In a mount namespace where the vault's names resolve; its pid stays the same."""
        workspace, emulator = self.workspace, self.workspace.emulator
        arguments = (
            *("provider.emulator.hosts", "--hosts-file", str(emulator / "hosts"), "--"),
            *python("provider", "--endpoint", f"unix://{workspace.provider_socket}"),
            *("--cloud-files-dir", str(emulator)),
        )
        environment = {
            "REQUESTS_CA_BUNDLE": str(emulator / "ca.pem"),
            "NO_PROXY": "*",  # what the vault's names stand for is this machine
            "no_proxy": "*",
        }
        return Program(name="provider", arguments=arguments, environment=environment)

    def _emulator(self) -> Program:
        workspace = self.workspace
        arguments = (
            *("provider.emulator", "--dir", str(workspace.emulator)),
            *("--config", str(workspace.emulator_config)),
        )
        return Program(name="emulator", arguments=arguments)

    def _emulator_config(self) -> bytes:
        return msgspec.yaml.encode(
            {
                "tenant": _TENANT,
                "principals": {
                    "demo-app": {"client_id": _CLIENT, "client_secret": self.client_secret}
                },
                "vaults": {
                    VAULT: {
                        "access": {"demo-app": ["get"]},
                        "secrets": {secret.name: secret.first for secret in SECRETS},
                    }
                },
            }
        )

    def _provider_class(self) -> bytes:
        objects = [
            f"objectName: {secret.name}\nobjectType: secret\nobjectAlias: {secret.file}\n"
            for secret in SECRETS
        ]
        return msgspec.yaml.encode(
            {
                "apiVersion": "secrets-store.csi.x-k8s.io/v1",
                "kind": "SecretProviderClass",
                "metadata": {"name": CLASS, "namespace": NAMESPACE},
                "spec": {
                    "provider": "azure",
                    "parameters": {
                        "keyvaultName": VAULT,
                        "tenantId": _TENANT,
                        "cloudName": "AzureStackCloud",
                        "cloudEnvFileName": str(self.workspace.emulator / "cloud.json"),
                        "objects": msgspec.yaml.encode({"array": objects}).decode(),
                    },
                },
            }
        )


def at_port(program: Program, port: int) -> Program:
    """Return the emulator at a port of its own choice made permanent: it is part of every URL."""
    return attrs.evolve(program, arguments=(*program.arguments, "--port", str(port)))

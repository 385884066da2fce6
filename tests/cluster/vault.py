"""A Key Vault beside the node: the emulator in this process, reached through the node's network.

As the service is for a real node, it is no part of it: content, certificate and port outlive a
reboot. Only the socket that listens in the node's network is another one after each boot.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from cluster import network
from cluster.addresses import ADDRESS
from provider.emulator import local
from provider.emulator.config import EmulatorConfig, PrincipalConfig, VaultConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cluster.api import Thing
    from cluster.node import Node
    from provider.emulator.client import EmulatorClient

TENANT: Final = "3b6e2a3c-65a8-4d54-9d5b-0f2f6a1f7a10"
CLIENT_ID: Final = "5d0a2f0e-3c1b-4a3c-9f0e-8f5f5b6f8c11"
CLIENT_SECRET: Final = "not-a-secret"
VAULT: Final = "team"
CLOUD_FILE: Final = "emulator.json"
AUTHORITY: Final = "emulator-ca"
AUTHORITY_KEY: Final = "ca.crt"
_START_S: Final = 30.0


@attrs.frozen(kw_only=True)
class Vault:
    """The vault as scenarios and the chart need it.

    Attributes:
        client: Its admin API: more secrets, faults, the log of requests.
    """

    client: EmulatorClient

    def set(self, **values: str) -> None:
        """Add a version of each secret; in names, `_` stands for the `-` of Key Vault."""
        for name, value in values.items():
            self.client.set_secret(VAULT, name.replace("_", "-"), value)

    def authority(self) -> Thing:
        """Return the ConfigMap by which the provider trusts the vault."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": AUTHORITY, "namespace": "kube-system"},
            "data": {AUTHORITY_KEY: self.client.ca_file.read_text(encoding="ascii")},
        }

    def chart_values(self) -> Mapping[str, object]:
        """Return what the chart must be told of a private cloud: its `provider` values."""
        cloud = json.loads(self.client.cloud_file.read_text(encoding="utf-8"))
        lines = self.client.hosts_file.read_text(encoding="ascii").splitlines()
        hosts = [name for line in lines for name in line.split()[1:] if "." in name]
        return {
            "cloudFiles": {CLOUD_FILE: cloud},
            "caBundle": {"configMap": AUTHORITY, "key": AUTHORITY_KEY},
            "hostAliases": [{"ip": ADDRESS, "hostnames": hosts}],
        }


@contextmanager
def vault(node: Node, folder: Path) -> Iterator[Vault]:
    """Run a vault without secrets, which the node reaches after each of its boots.

    Args:
        node: It runs.
        folder: Where the vault describes itself; a short path.
    """
    config = EmulatorConfig(
        tenant=TENANT,
        principals={"team": PrincipalConfig(client_id=CLIENT_ID, client_secret=CLIENT_SECRET)},
        vaults={VAULT: VaultConfig(access={"team": ["get"]})},
    )
    with local.running(config, folder) as client:
        way = _Way(client.port)
        node.neighbours.append(way.open)
        way.open(node.machine.init)
        try:
            yield Vault(client=client)
        finally:
            node.neighbours.remove(way.open)
            way.close()


class _Way:
    """Carries connections from the node's network to a port of this process's network."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()

    def open(self, init: int) -> None:
        """Listen in the network of a node that has just booted; the way before is closed."""
        self.close()
        listener = _listen_in(init, ADDRESS, self._port)
        ready = threading.Event()
        self._thread = threading.Thread(
            target=trio.run, args=(self._serve, listener, ready), name="way to the vault"
        )
        self._thread.start()
        assert ready.wait(_START_S)

    def close(self) -> None:
        """Listen no longer; connections end."""
        if self._thread is None or self._token is None:
            return
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()
        self._thread = None

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._scope:
            ready.set()
            accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            await trio.serve_listeners(self._carry, [accepting])

    async def _carry(self, near: trio.SocketStream) -> None:
        await network.carry(near, await trio.open_tcp_stream("127.0.0.1", self._port))


def _listen_in(init: int, address: str, port: int) -> socket.socket:
    """Return a socket that listens in the network namespace of another process."""
    with network.inside(init) as run:
        return run(lambda: socket.create_server((address, port)))

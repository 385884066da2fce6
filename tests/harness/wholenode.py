"""A node with everything real but kubelet: emulator, provider, keeper, node server, kernel.

All programs log as much as they can, run in a scratch directory of their own, may write core files
there, and report crashes: whatever they let out is below one directory.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio
import yaml

from csi._pb import csi_pb2, csi_pb2_grpc
from fusefs import client
from harness.kubelet import DRIVER, NAMESPACE, NODE, KubeletRoot, PodVolume, kubelet_root
from harness.node import CALL_TIMEOUT_S, is_ready, open_channel
from harness.programs import Program
from provider._pb import v1alpha1_pb2_grpc
from provider.emulator import EmulatorClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fusefs.published import PublishedVolume

TENANT: Final = "6f1c6a0e-0000-4000-8000-000000000001"
CLIENT: Final = "0b5f2c1e-0000-4000-8000-000000000001"
PRINCIPAL: Final = "app"
VAULT: Final = "demo"
MAX_REPLY_BYTES: Final = 64 << 10
_STREAM: Final = socket.SOCK_STREAM
_PACKETS: Final = socket.SOCK_SEQPACKET
_PROGRAMS: Final = ("emulator", "provider", "keeper", "node server")


@attrs.frozen(kw_only=True)
class WholeNode:
    """The running node.

    Attributes:
        directory: Holds everything that the programs may write to.
        planted: The files into which the test put secrets itself.
        programs: By name: emulator, provider, keeper, node server.
    """

    directory: Path
    kubelet: KubeletRoot
    planted: tuple[Path, ...]
    programs: Mapping[str, Program]
    emulator: EmulatorClient
    calls: csi_pb2_grpc.NodeStub
    identity: csi_pb2_grpc.IdentityStub
    provider: v1alpha1_pb2_grpc.CSIDriverProviderStub

    @property
    def scratch(self) -> Path:
        """Where the programs run."""
        return self.directory / "scratch"

    def write_class(self, name: str, objects: str, **parameters: str) -> Path:
        """Put a class into the class directory and return its file."""
        common = {
            "keyvaultName": VAULT,
            "tenantID": TENANT,
            "cloudName": "AzureStackCloud",
            "cloudEnvFileName": str(self.emulator.cloud_file),
            "objects": objects,
        }
        document = {
            "apiVersion": "secrets-store.csi.x-k8s.io/v1",
            "kind": "SecretProviderClass",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"provider": "azure", "parameters": common | parameters},
        }
        hidden = self.directory / "classes" / f".{name}.yaml"
        hidden.write_text(yaml.safe_dump(document), encoding="utf-8")
        return hidden.rename(self.directory / "classes" / f"{name}.yaml")

    def unpublish(self, volume: PodVolume) -> None:
        """Unpublish a volume and remove what kubelet made for it."""
        request = csi_pb2.NodeUnpublishVolumeRequest(
            volume_id=volume.volume_id, target_path=str(volume.target)
        )
        self.calls.NodeUnpublishVolume(request, timeout=CALL_TIMEOUT_S)
        volume.remove()

    def volumes(self) -> list[PublishedVolume]:
        """Return what the keeper serves, asked beside the node server's session."""

        async def ask() -> list[PublishedVolume]:
            with trio.fail_after(CALL_TIMEOUT_S):
                path = str(self.directory / "keeper" / "keeper.sock")
                async with client.connect(path, register=False) as session:
                    return await session.volumes(snapshots=False)

        return trio.run(ask)

    def processes(self) -> list[int]:
        """Return the pids of the programs, workers and other children included."""
        found = [program.pid for program in self.programs.values()]
        for pid in found:
            with suppress(OSError):  # a child of the keeper that has ended meanwhile
                listed = Path("/proc", str(pid), "task", str(pid), "children").read_text("ascii")
                found.extend(map(int, listed.split()))
        return found

    def restart(self, name: str) -> None:
        """Start a program again that has ended, and wait for it."""
        program = self.programs[name]
        program.restart()
        self.wait_for(name)

    def wait_for(self, name: str) -> None:
        """Return once a program does its work."""
        conditions = {
            "emulator": (self.directory / "emulator" / "emulator.json").exists,
            "provider": lambda: _listens(self.directory / "providers/azure.sock", _STREAM),
            "keeper": lambda: _listens(self.directory / "keeper/keeper.sock", _PACKETS),
            "node server": lambda: is_ready(self.identity),
        }
        self.programs[name].wait_until(conditions[name], "it answers")


@contextmanager
def whole_node(
    directory: Path,
    *,
    client_secret: str,
    as_json: bool = False,
    node_module: str = "csi",
) -> Iterator[WholeNode]:
    """Run a node in `directory`, which must be empty and have a short path.

    Args:
        directory: Holds sockets, classes, logs and the kubelet root.
        client_secret: Of the service principal; the vault is empty, and it may read it.
        as_json: Let those programs that can write their logs as JSON.
        node_module: What runs as node server.
    """
    for name in ("classes", "providers", "csi", "registration", "emulator", "scratch", "logs"):
        (directory / name).mkdir()
    config = directory / "emulator.yaml"
    config.touch(mode=0o600)
    config.write_text(_emulator_config(client_secret), encoding="utf-8")
    with ExitStack() as stack:
        stack.enter_context(core_files_allowed())
        kubelet = stack.enter_context(kubelet_root(directory / "kubelet"))
        programs: dict[str, Program] = {}
        calls = stack.enter_context(open_channel(directory / "csi" / "csi.sock"))
        mounts = stack.enter_context(open_channel(directory / "providers" / "azure.sock"))
        node = WholeNode(
            directory=directory,
            kubelet=kubelet,
            planted=(config,),
            programs=programs,
            emulator=EmulatorClient.from_dir(directory / "emulator"),
            calls=csi_pb2_grpc.NodeStub(calls),
            identity=csi_pb2_grpc.IdentityStub(calls),
            provider=v1alpha1_pb2_grpc.CSIDriverProviderStub(mounts),
        )
        for name in _PROGRAMS:
            arguments = _arguments(name, directory, as_json=as_json, node_module=node_module)
            program = Program(
                name,
                arguments,
                log=directory / "logs" / f"{name}.log",
                directory=directory / "scratch",
                environment=_environment(directory),
            )
            programs[name] = stack.enter_context(program)
            if name == "emulator":
                node.wait_for(name)  # what it writes, the provider reads
        for name in _PROGRAMS[1:]:
            node.wait_for(name)
        yield node


@contextmanager
def core_files_allowed() -> Iterator[None]:
    """Let what is started inside the block write core files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def _listens(path: Path, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def _emulator_config(client_secret: str) -> str:
    principal = {"client_id": CLIENT, "client_secret": client_secret}
    return json.dumps(
        {
            "tenant": TENANT,
            "principals": {PRINCIPAL: principal},
            "vaults": {VAULT: {"access": {PRINCIPAL: ["get"]}}},
        }
    )


def _environment(directory: Path) -> dict[str, str]:
    return {
        "PYTHONFAULTHANDLER": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "TMPDIR": str(directory / "scratch"),
        "HOME": str(directory / "scratch"),
        "REQUESTS_CA_BUNDLE": str(directory / "emulator" / "ca.pem"),
        "NO_PROXY": "*",
        "no_proxy": "*",
    }


def _arguments(name: str, directory: Path, *, as_json: bool, node_module: str) -> list[str]:
    """Return module and arguments of a program."""
    verbose = ["--log-level=debug"]
    form = ["--log-format-json"] if as_json else []
    emulator, kubelet = directory / "emulator", directory / "kubelet"
    match name:
        case "emulator":
            flags = [f"--dir={emulator}", f"--config={directory / 'emulator.yaml'}"]
            return ["provider.emulator", *flags, *verbose]
        case "provider":
            launcher = ["provider.emulator.hosts", f"--hosts-file={emulator / 'hosts'}", "--"]
            endpoint = f"--endpoint=unix://{directory / 'providers' / 'azure.sock'}"
            flags = [endpoint, f"--cloud-files-dir={emulator}", *verbose, *form]
            return [*launcher, sys.executable, "-m", "provider", *flags]
        case "keeper":
            flags = [f"--socket={directory / 'keeper' / 'keeper.sock'}"]
            return ["fusefs", *flags, f"--kubelet-root={kubelet}", *verbose]
        case _:
            return [
                node_module,
                f"--endpoint=unix://{directory / 'csi' / 'csi.sock'}",
                f"--nodeid={NODE}",
                f"--drivername={DRIVER}",
                f"--keeper-socket={directory / 'keeper' / 'keeper.sock'}",
                f"--kubelet-root={kubelet}",
                f"--provider-volume={directory / 'providers'}",
                "--additional-provider-volume-paths=",
                f"--registration-dir={directory / 'registration'}",
                f"--class-dir={directory / 'classes'}",
                "--enable-secret-rotation",
                "--rotation-poll-interval=1s",
                "--rotation-jitter=0",
                f"--max-call-recv-msg-size={MAX_REPLY_BYTES}",
                *verbose,
                *form,
            ]

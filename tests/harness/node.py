"""A node with everything real but kubelet and the provider: keeper, node server, kernel.

`running_node` starts the two programs on a kubelet root of their own, and ends them, whatever the
test did, with nothing left mounted. The provider is a fake that really speaks gRPC.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import grpc
import trio
import yaml

from csi._pb import csi_pb2, csi_pb2_grpc
from fakes.providersocket import FakeProvider, provider_at
from fusefs import client
from harness.kubelet import DRIVER, NAMESPACE, NODE, KubeletRoot, PodVolume, kubelet_root
from harness.programs import Program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fusefs.published import PublishedVolume

CALL_TIMEOUT_S: Final = 20.0
CLASS: Final = "app"
PROVIDER: Final = "fake"


@attrs.frozen
class Footprint:
    """All that could be left of a volume: mounts, files below `pods`, what the keeper lists.

    Attributes:
        files: For each path its type, and where a link leads.
    """

    mounts: tuple[str, ...]
    files: Mapping[str, str]
    volumes: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Node:
    """The running node, with kubelet's side of the CSI socket."""

    kubelet: KubeletRoot
    keeper: Program
    server: Program
    provider: FakeProvider
    class_dir: Path
    keeper_socket: Path
    csi_socket: Path
    channel: grpc.Channel
    identity: csi_pb2_grpc.IdentityStub
    controller: csi_pb2_grpc.ControllerStub
    calls: csi_pb2_grpc.NodeStub

    def volume(self, *, name: str = "secrets") -> PodVolume:
        """Return a volume of a new pod, prepared as kubelet does it."""
        volume = self.kubelet.volume(name=name)
        volume.prepare()
        return volume

    def publish(self, volume: PodVolume, **changes: object) -> None:
        """Publish a volume of the class `CLASS`, with `changes` to the request's fields.

        Raises:
            grpc.RpcError: As the driver answers.
        """
        self.calls.NodePublishVolume(publish_request(volume, **changes), timeout=CALL_TIMEOUT_S)

    def unpublish(self, volume: PodVolume) -> None:
        """Unpublish a volume.

        Raises:
            grpc.RpcError: As the driver answers.
        """
        request = csi_pb2.NodeUnpublishVolumeRequest(
            volume_id=volume.volume_id, target_path=str(volume.target)
        )
        self.calls.NodeUnpublishVolume(request, timeout=CALL_TIMEOUT_S)

    def write_class(
        self,
        name: str,
        *,
        provider: str | None = PROVIDER,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        """Put a class into the class directory; None leaves the field out."""
        spec = {"provider": provider, "parameters": parameters}
        document = {
            "apiVersion": "secrets-store.csi.x-k8s.io/v1",
            "kind": "SecretProviderClass",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {key: value for key, value in spec.items() if value is not None},
        }
        hidden = self.class_dir / f".{name}.yaml"
        hidden.write_text(yaml.safe_dump(document), encoding="utf-8")
        hidden.rename(self.class_dir / f"{name}.yaml")

    def keeper_volumes(self) -> list[PublishedVolume]:
        """Return what the keeper serves, asked beside the node server's session."""

        async def ask() -> list[PublishedVolume]:
            with trio.fail_after(CALL_TIMEOUT_S):
                async with client.connect(str(self.keeper_socket), register=False) as session:
                    return await session.volumes(snapshots=False)

        return trio.run(ask)

    def footprint(self) -> Footprint:
        """Return what there is of volumes now."""
        return Footprint(
            tuple(str(mount) for mount in self.kubelet.mounts()),
            dict(_files(self.kubelet.path / "pods")),
            tuple(sorted(volume.volume_id for volume in self.keeper_volumes())),
        )


def publish_request(volume: PodVolume, **changes: Any) -> csi_pb2.NodePublishVolumeRequest:  # noqa: ANN401 - any field
    """Return kubelet's request for a volume of the class `CLASS`, with some fields changed."""
    fields: dict[str, Any] = {
        "volume_id": volume.volume_id,
        "target_path": str(volume.target),
        "volume_capability": csi_pb2.VolumeCapability(
            mount=csi_pb2.VolumeCapability.MountVolume(),
            access_mode=csi_pb2.VolumeCapability.AccessMode(
                mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
            ),
        ),
        "readonly": True,
        "volume_context": volume.context(CLASS),
    }
    return csi_pb2.NodePublishVolumeRequest(**{**fields, **changes})


@contextmanager
def running_node(directory: Path, *, server_flags: Sequence[str] = ()) -> Iterator[Node]:
    """Run a node in `directory`, which must be empty and have a short path.

    Args:
        directory: Holds sockets, classes, logs and the kubelet root.
        server_flags: Added to the node server's.
    """
    with ExitStack() as stack:
        kubelet = stack.enter_context(kubelet_root(directory / "kubelet"))
        for name in ("classes", "providers", "csi"):
            (directory / name).mkdir()
        provider = stack.enter_context(provider_at(directory / "providers" / f"{PROVIDER}.sock"))
        keeper_socket = directory / "keeper" / "keeper.sock"
        keeper = stack.enter_context(_keeper(directory, keeper_socket, kubelet))
        csi_socket = directory / "csi" / "csi.sock"
        server = stack.enter_context(
            _node_server(directory, csi_socket, keeper_socket, kubelet, server_flags)
        )
        channel = stack.enter_context(open_channel(csi_socket))
        node = Node(
            kubelet=kubelet,
            keeper=keeper,
            server=server,
            provider=provider,
            class_dir=directory / "classes",
            keeper_socket=keeper_socket,
            csi_socket=csi_socket,
            channel=channel,
            identity=csi_pb2_grpc.IdentityStub(channel),
            controller=csi_pb2_grpc.ControllerStub(channel),
            calls=csi_pb2_grpc.NodeStub(channel),
        )
        server.wait_until(lambda: is_ready(node.identity), "the driver is ready")
        node.write_class(CLASS, parameters={"objects": "any"})
        yield node


def _keeper(directory: Path, path: Path, kubelet: KubeletRoot) -> Program:
    program = Program(
        "keeper",
        ["fusefs", f"--socket={path}", f"--kubelet-root={kubelet.path}", f"--driver-name={DRIVER}"],
        log=directory / "keeper.log",
    )
    try:
        program.wait_until(lambda: _listens(path), "the keeper listens")
    except BaseException:
        program.kill()
        raise
    return program


def _node_server(
    directory: Path, path: Path, keeper_socket: Path, kubelet: KubeletRoot, flags: Sequence[str]
) -> Program:
    arguments = [
        "csi",
        f"--endpoint=unix://{path}",
        f"--nodeid={NODE}",
        f"--drivername={DRIVER}",
        f"--keeper-socket={keeper_socket}",
        f"--kubelet-root={kubelet.path}",
        f"--provider-volume={directory / 'providers'}",
        "--additional-provider-volume-paths=",
        f"--class-dir={directory / 'classes'}",
        "--metrics-addr=0",
        *flags,
    ]
    return Program("node server", arguments, log=directory / "csi.log")


@contextmanager
def open_channel(path: Path) -> Iterator[grpc.Channel]:
    """Open a channel to a unix socket, which need not be there yet."""
    options = [
        ("grpc.default_authority", "localhost"),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 200),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
        yield channel


def is_ready(identity: csi_pb2_grpc.IdentityStub) -> bool:
    """Return whether the driver says that it is ready."""
    try:
        return identity.Probe(csi_pb2.ProbeRequest(), timeout=1.0).ready.value
    except grpc.RpcError:
        return False


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def _files(top: Path) -> Iterator[tuple[str, str]]:
    """Yield what lies below a directory, without following links or entering mounts."""
    device = top.stat().st_dev
    for folder, folders, names in os.walk(top):
        for name in [*folders, *names]:
            path = Path(folder, name)
            mode = path.lstat().st_mode
            link = f" -> {path.readlink()}" if stat.S_ISLNK(mode) else ""
            yield str(path.relative_to(top)), stat.filemode(mode)[0] + link
        folders[:] = [each for each in folders if Path(folder, each).lstat().st_dev == device]

"""How kubelet learns of the driver: its plugin watcher finds our socket and calls us.

Done here instead of by a sidecar. The socket ``<directory>/<driver>-reg.sock`` is there only while
volumes can be published, so a pod is never given to a driver that is not ready for the first one.

kubelet knows one driver of a name and refuses the second. It does not say where the first one is;
the other sockets beside ours do.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import grpc
import trio
from typing_extensions import override

from csi import logkeys
from csi._pb import pluginregistration_pb2, pluginregistration_pb2_grpc
from csi.bridge import Bridge
from csi.server import serving

log = logging.getLogger(__name__)

_PLUGIN_TYPE: Final = "CSIPlugin"
# Versions of the CSI, of which kubelet wants to see one that it knows.
_CSI_VERSIONS: Final = ("1.0.0",)
_THREADS: Final = 2
# Who else registers is asked while kubelet waits, which it does for five seconds.
_ASKED: Final = 8
_ASK_TIMEOUT_S: Final = 0.5

OnOutcome = Callable[[bool], None]


class RegistrationServicer(pluginregistration_pb2_grpc.RegistrationServicer):
    """pluginregistration.Registration."""

    def __init__(
        self, socket: Path, *, driver_name: str, csi_socket: str, on_outcome: OnOutcome
    ) -> None:
        """Announce `driver_name` at `csi_socket`, a path as kubelet sees it; be at `socket`."""
        self._socket = socket
        self._driver_name = driver_name
        self._csi_socket = csi_socket
        self._on_outcome = on_outcome

    @override
    def GetInfo(
        self, request: pluginregistration_pb2.InfoRequest, context: grpc.ServicerContext
    ) -> pluginregistration_pb2.PluginInfo:
        """Say what is to be registered."""
        return pluginregistration_pb2.PluginInfo(
            type=_PLUGIN_TYPE,
            name=self._driver_name,
            endpoint=self._csi_socket,
            supported_versions=_CSI_VERSIONS,
        )

    @override
    def NotifyRegistrationStatus(
        self, request: pluginregistration_pb2.RegistrationStatus, context: grpc.ServicerContext
    ) -> pluginregistration_pb2.RegistrationStatusResponse:
        """Hear whether kubelet took it."""
        self._on_outcome(request.plugin_registered)
        fields: dict[str, object] = {logkeys.DRIVER: self._driver_name}
        if request.plugin_registered:
            log.info("registered with kubelet", extra=fields)
        else:
            holders = ", ".join(_holders(self._socket, self._driver_name))
            log.error(
                "kubelet refused the registration; remove the other driver of this name",
                extra=fields
                | {logkeys.HOLDER: holders or "not found", logkeys.ERROR: request.error},
            )
        return pluginregistration_pb2.RegistrationStatusResponse()


@asynccontextmanager
async def registered(
    directory: Path, *, driver_name: str, csi_socket: str, on_outcome: OnOutcome
) -> AsyncIterator[None]:
    """Let kubelet find the driver inside the block.

    Args:
        directory: kubelet's ``plugins_registry``.
        driver_name: The name of the CSIDriver object.
        csi_socket: The CSI socket, as kubelet sees its path.
        on_outcome: Told in the loop, each time kubelet has decided, whether it took the driver.

    Raises:
        SocketError: The socket cannot be bound.
    """
    socket = directory / f"{driver_name}-reg.sock"
    bridge = Bridge(trio.lowlevel.current_trio_token())
    servicer = RegistrationServicer(
        socket,
        driver_name=driver_name,
        csi_socket=csi_socket,
        on_outcome=lambda accepted: bridge.tell(partial(on_outcome, accepted)),
    )

    def register(server: grpc.Server) -> None:
        pluginregistration_pb2_grpc.add_RegistrationServicer_to_server(servicer, server)

    async with serving(socket, register, threads=_THREADS):
        yield


def _holders(ours: Path, driver_name: str) -> Iterator[str]:
    """Yield where else, in the directory of our socket, a driver of this name is announced."""
    others = sorted(path for path in ours.parent.iterdir() if path != ours and path.is_socket())
    for path in others[:_ASKED]:
        try:
            with grpc.insecure_channel(f"unix:{path}") as channel:
                stub = pluginregistration_pb2_grpc.RegistrationStub(channel)
                info = stub.GetInfo(pluginregistration_pb2.InfoRequest(), timeout=_ASK_TIMEOUT_S)
        except grpc.RpcError:
            continue  # a plugin that does not run any more
        if info.name == driver_name:
            yield f"{info.endpoint} (of {path.name})"

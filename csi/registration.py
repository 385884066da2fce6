"""How kubelet learns of the driver: its plugin watcher finds our socket and calls us.

Done here instead of by a sidecar. The socket ``<directory>/<driver>-reg.sock`` is there only while
volumes can be published, so a pod is never given to a driver that is not ready for the first one.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc
from typing_extensions import override

from csi import logkeys
from csi._pb import pluginregistration_pb2, pluginregistration_pb2_grpc
from csi.server import serving

log = logging.getLogger(__name__)

_PLUGIN_TYPE: Final = "CSIPlugin"
# Versions of the CSI, of which kubelet wants to see one that it knows.
_CSI_VERSIONS: Final = ("1.0.0",)
_THREADS: Final = 2


class RegistrationServicer(pluginregistration_pb2_grpc.RegistrationServicer):
    """pluginregistration.Registration."""

    def __init__(self, *, driver_name: str, csi_socket: str) -> None:
        """Announce `driver_name` at `csi_socket`, a path as kubelet sees it."""
        self._driver_name = driver_name
        self._csi_socket = csi_socket

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
        if request.plugin_registered:
            log.info("registered with kubelet", extra={logkeys.DRIVER: self._driver_name})
        else:
            log.error(
                "kubelet refused the registration; another driver may hold the name",
                extra={logkeys.DRIVER: self._driver_name, logkeys.ERROR: request.error},
            )
        return pluginregistration_pb2.RegistrationStatusResponse()


@asynccontextmanager
async def registered(directory: Path, *, driver_name: str, csi_socket: str) -> AsyncIterator[None]:
    """Let kubelet find the driver inside the block.

    Args:
        directory: kubelet's ``plugins_registry``.
        driver_name: The name of the CSIDriver object.
        csi_socket: The CSI socket, as kubelet sees its path.

    Raises:
        SocketError: The socket cannot be bound.
    """
    servicer = RegistrationServicer(driver_name=driver_name, csi_socket=csi_socket)

    def register(server: grpc.Server) -> None:
        pluginregistration_pb2_grpc.add_RegistrationServicer_to_server(servicer, server)

    async with serving(directory / f"{driver_name}-reg.sock", register, threads=_THREADS):
        yield

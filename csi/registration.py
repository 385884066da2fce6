"""How kubelet learns of the driver: its plugin watcher finds our socket and calls us.

Done here instead of by a sidecar. ``<directory>/<driver>-reg.sock`` is there only while volumes can
be published, so a pod is never given to a driver that is not ready for the first one.

It is a link that outlives the process, and the socket it leads to lies beside the CSI socket, where
kubelet does not watch. A socket that were replaced in the watched directory would be a new plugin:
kubelet forgets the driver and registers it again in its next round, a second later (kubelet 1.37,
pluginmanager), and pods that start in between fail.

kubelet knows one driver of a name and refuses the second. It does not say where the first one is;
the other sockets beside ours do.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import grpc
import trio
from typing_extensions import override

from csi import logkeys
from csi._pb import pluginregistration_pb2, pluginregistration_pb2_grpc
from csi.bridge import Bridge
from csi.errors import SocketError
from csi.server import serving
from csi.sockets import hidden_name

log = logging.getLogger(__name__)

_PLUGIN_TYPE: Final = "CSIPlugin"
# Versions of the CSI, of which kubelet wants to see one that it knows.
_CSI_VERSIONS: Final = ("1.0.0",)
_SOCKET: Final = "registration.sock"
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
    directory: Path,
    *,
    driver_name: str,
    csi_socket: Path,
    kubelet_csi_socket: str,
    on_outcome: OnOutcome,
) -> AsyncIterator[None]:
    """Let kubelet find the driver inside the block.

    Args:
        directory: kubelet's ``plugins_registry``.
        driver_name: The name of the CSIDriver object.
        csi_socket: The CSI socket; the registration socket is put beside it.
        kubelet_csi_socket: The same, as kubelet sees its path.
        on_outcome: Told in the loop, each time kubelet has decided, whether it took the driver.
            kubelet decides nothing about one that it knows from before: that one is taken.

    Raises:
        SocketError: The socket cannot be bound, or the link cannot be made.
    """
    socket = csi_socket.with_name(_SOCKET)
    link = _Link(
        path=directory / f"{driver_name}-reg.sock",
        text=str(Path(kubelet_csi_socket).with_name(_SOCKET)),
        socket=socket,
    )
    known = link.is_known()
    bridge = Bridge(trio.lowlevel.current_trio_token())
    servicer = RegistrationServicer(
        link.path,
        driver_name=driver_name,
        csi_socket=kubelet_csi_socket,
        on_outcome=lambda accepted: bridge.tell(partial(on_outcome, accepted)),
    )

    def register(server: grpc.Server) -> None:
        pluginregistration_pb2_grpc.add_RegistrationServicer_to_server(servicer, server)

    async with serving(socket, register, threads=_THREADS, on_released=link.remove):
        # Looked at again: the predecessor may have been about to remove it.
        if known and link.leads_here():
            on_outcome(True)  # noqa: FBT003 - the callback's one argument
        else:
            link.make()
        yield


@attrs.frozen(kw_only=True)
class _Link:
    """What kubelet finds: a link to the registration socket."""

    path: Path
    text: str  # as kubelet sees the path of the socket
    socket: Path

    def is_known(self) -> bool:
        """Return whether kubelet knows the link from a node server before this one.

        It does not if the socket was never there, or is of a time before the node's last start.
        """
        try:
            made = self.socket.lstat().st_ctime
        except FileNotFoundError:
            return False
        return self.leads_here() and made > time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def leads_here(self) -> bool:
        """Return whether the link is there."""
        return self.path.is_symlink() and str(self.path.readlink()) == self.text

    def make(self) -> None:
        """Put the link there anew, which kubelet takes for a new plugin."""
        hidden = hidden_name(self.path)
        try:
            hidden.symlink_to(self.text)
            hidden.rename(self.path)
        except OSError as error:
            message = f"{self.path} cannot be made: {error.strerror}; mount it writable"
            raise SocketError(message) from error

    def remove(self) -> None:
        """Take the link away, which makes kubelet forget the driver, unless a successor is there.

        He looks at the link after his socket is there, so one of the two sees the other.
        """
        if self.leads_here():
            self.path.unlink()
        if self.socket.exists():
            self.make()


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

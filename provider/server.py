"""The gRPC server on its unix socket.

The socket is bound under a hidden name and renamed over the fixed path once it answers, so that a
caller finds either the predecessor or a server that works, never a refused connection in between.
gRPC removes the name that it bound, which by then is nobody's; the fixed path is removed only if it
is this server's socket, because a successor may have taken it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from provider import logkeys
from provider._pb import v1alpha1_pb2_grpc as pb_grpc
from provider.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from provider.service import ProviderService

log = logging.getLogger(__name__)

SERVICE: Final = "v1alpha1.CSIDriverProvider"
# Threads are made as calls come. More than the 250 pods that a node may have, so that health and
# version are answered while every mount waits for a slow vault.
_THREADS: Final = 300
_HIDDEN_BYTES: Final = 4  # of chance, in the name under which a socket is bound
# Bytes of sockaddr_un.sun_path without its final zero, and without what a hidden name adds.
_LONGEST_PATH: Final = 107 - 2 - 2 * _HIDDEN_BYTES
GRACE_S: Final = 20.0  # for calls that are at work when the server is told to stop


@attrs.frozen(kw_only=True)
class Endpoint:
    """Where a server listens.

    Attributes:
        protocol: As it was written.
        address: A path, or host and port.
    """

    protocol: str
    address: str


def parse_endpoint(text: str) -> Endpoint:
    """Read an endpoint as the reference does: `unix://` or `tcp://`, in any case.

    Raises:
        InvalidRequest: another scheme, or nothing behind it.
    """
    scheme, separator, address = text.partition("://")
    if scheme.lower() not in {"unix", "tcp"} or not separator or not address:
        message = f"invalid endpoint: {text}"
        raise InvalidRequest(message, remedy="give it as unix:///provider/azure.sock")
    return Endpoint(protocol=scheme, address=address)


def socket_path(text: str) -> Path:
    """Return the path of the socket that an endpoint names.

    Raises:
        InvalidRequest: not a unix socket, or a path that no socket can have.
    """
    endpoint = parse_endpoint(text)
    if endpoint.protocol.lower() != "unix":
        message = f"invalid endpoint: {text}"
        remedy = "secrets are served on a unix socket only, such as unix:///provider/azure.sock"
        raise InvalidRequest(message, remedy=remedy)
    path = Path(endpoint.address)
    if not path.is_absolute() or len(os.fsencode(path)) > _LONGEST_PATH:
        message = f"invalid endpoint: {text}"
        remedy = f"give an absolute path of at most {_LONGEST_PATH} bytes"
        raise InvalidRequest(message, remedy=remedy)
    return path


@contextlib.contextmanager
def serving(
    service: ProviderService, path: Path, *, grace: float = GRACE_S
) -> Iterator[grpc.Server]:
    """Serve while the block runs, then take the socket away and let calls at work end.

    Args:
        service: The provider protocol.
        path: Where the socket appears.
        grace: Seconds that calls at work have to end.

    Raises:
        InvalidRequest: the socket cannot be made there.
    """
    with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="akvfs-rpc") as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        yield from _serving(server, service, path, grace)


def _serving(
    server: grpc.Server, service: ProviderService, path: Path, grace: float
) -> Iterator[grpc.Server]:
    """Serve on a server whose threads the caller joins."""
    pb_grpc.add_CSIDriverProviderServicer_to_server(service, server)
    healthy = health.HealthServicer()
    for name in ("", SERVICE):
        healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    identity = _bind(server, path)
    log.info("serving", extra={logkeys.SOCKET: str(path)})
    try:
        yield server
    finally:
        log.info("stopping", extra={logkeys.SOCKET: str(path)})
        healthy.enter_graceful_shutdown()
        _remove_own(path, identity)
        server.stop(grace).wait()


def _bind(server: grpc.Server, path: Path) -> tuple[int, int]:
    """Start a server and give its socket the fixed name; return its identity."""
    hidden = _hidden(path)
    mask = os.umask(0o077)
    try:
        server.add_insecure_port(f"unix:{hidden}")
        server.start()
        identity = _identity(hidden)
        hidden.replace(path)
    except (OSError, RuntimeError) as error:
        server.stop(None)
        message = f"no socket can be made at {path}: {type(error).__name__}"
        raise InvalidRequest(message, remedy="is its directory there and writable?") from error
    finally:
        os.umask(mask)
    return identity


def _remove_own(path: Path, identity: tuple[int, int]) -> None:
    """Remove the socket unless a successor has put its own there.

    One may come between the look and the removal, so it is taken aside first, looked at again, and
    given back if it was the successor's after all.
    """
    with contextlib.suppress(FileNotFoundError):
        if _identity(path) != identity:
            return
        aside = _hidden(path)
        path.rename(aside)
        if _identity(aside) != identity:
            with contextlib.suppress(FileExistsError):  # of an even newer one
                path.hardlink_to(aside)
        aside.unlink()


def _identity(path: Path) -> tuple[int, int]:
    facts = path.lstat()
    return facts.st_dev, facts.st_ino


def _hidden(path: Path) -> Path:
    """Return the name under which a socket is bound.

    By chance, not by process id: in containers every provider has the same one, and an old one that
    stops would remove the new one's socket.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(_HIDDEN_BYTES)}")

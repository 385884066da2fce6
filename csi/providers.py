"""The client of the secrets providers of a node.

A provider is found by its socket ``<directory>/<name>.sock``. Each call looks for the socket
again, so a provider that was restarted, moved or upgraded is found at once; the channel to the
socket before serves what is under way on it and is closed then.
"""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import attrs
import grpc
import trio
from typing_extensions import override

from csi import logkeys
from csi.bridge import answer_of
from csi.errors import (
    ContentTooLarge,
    FilesMissing,
    ProviderFailed,
    ProviderNameInvalid,
    ProviderNotFound,
    ProviderRefused,
    VersionsMissing,
)
from csi.logs import redact
from csi.records import MountCall, MountReply, ObjectVersion, ReturnedFile
from provider._pb import v1alpha1_pb2, v1alpha1_pb2_grpc

log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{0,30}")
_LARGE_REPLY_BYTES: Final = 1 << 20  # more does not fit into a Secret; the reference logs it too
# So that the caller still gets our words when a provider uses up his deadline.
_MAX_MARGIN_S: Final = 1.0
_MARGIN_PART: Final = 0.1
_TOO_LARGE: Final = "received message larger than max"  # grpcio gives it no code of its own
# The reference's, and short waits for a socket that is just being bound.
_SERVICE_CONFIG: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "v1alpha1.CSIDriverProvider"}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.5s",
                    "maxBackoff": "10s",
                    "backoffMultiplier": 1.1,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)

_SocketIdentity = tuple[str, int, int, int]


class ProviderClient(Protocol):
    """Asks providers for content."""

    async def mount(self, provider: str, call: MountCall) -> MountReply:
        """Return what a provider answers.

        Raises:
            ProviderError: It is not there, failed, or its answer cannot be used.
        """
        ...


@attrs.define(kw_only=True)
class _Channel:
    """A channel to one socket; closed when it is replaced and nobody uses it any more."""

    identity: _SocketIdentity
    channel: grpc.Channel
    users: int = 0
    replaced: bool = False

    def close_if_idle(self) -> None:
        if self.replaced and not self.users:
            self.channel.close()


class SocketProviders(ProviderClient):
    """Providers behind unix sockets, one channel each."""

    def __init__(
        self, directories: Sequence[Path], *, max_reply_bytes: int, timeout_s: float
    ) -> None:
        """Look for sockets in `directories`, in this order, when asked."""
        self._directories = tuple(directories)
        self._max_reply_bytes = max_reply_bytes
        self._timeout_s = timeout_s
        self._channels: dict[str, _Channel] = {}

    def close(self) -> None:
        """Close the channels; calls under way fail."""
        for channel in self._channels.values():
            channel.channel.close()
        self._channels.clear()

    @override
    async def mount(self, provider: str, call: MountCall) -> MountReply:
        """See `ProviderClient.mount`."""
        reply = await self._call(provider, _message(call))
        if reply.error.code:
            raise ProviderRefused(reply.error.code)
        if not reply.object_version:
            raise VersionsMissing(provider)
        if not reply.files:
            raise FilesMissing(provider)
        size = reply.ByteSize()
        if size > _LARGE_REPLY_BYTES:
            log.info("large reply", extra={logkeys.PROVIDER: provider, logkeys.SIZE: size})
        return MountReply(
            files=tuple(
                ReturnedFile(path=file.path, mode=file.mode, content=file.contents)
                for file in reply.files
            ),
            versions=tuple(ObjectVersion(each.id, each.version) for each in reply.object_version),
        )

    async def _call(
        self, provider: str, request: v1alpha1_pb2.MountRequest
    ) -> v1alpha1_pb2.MountResponse:
        remaining = trio.current_effective_deadline() - trio.current_time()
        remaining -= min(_MAX_MARGIN_S, _MARGIN_PART * remaining)
        timeout = max(min(self._timeout_s, remaining), 0.0)
        with self._channel(provider) as channel:
            stub = v1alpha1_pb2_grpc.CSIDriverProviderStub(channel)
            try:
                return await answer_of(
                    lambda seconds: stub.Mount.future(request, timeout=seconds), timeout
                )
            except grpc.RpcError as error:
                failure = self._failure(provider, error, timeout)
        raise failure  # out here: grpc's error is the call, and repeats all that was answered

    @contextmanager
    def _channel(self, provider: str) -> Iterator[grpc.Channel]:
        identity = self._socket(provider)
        entry = self._channels.get(provider)
        if entry is None or entry.identity != identity:
            if entry is not None:
                log.info("the provider's socket was replaced", extra={logkeys.PROVIDER: provider})
                entry.replaced = True
                entry.close_if_idle()
            entry = _Channel(identity=identity, channel=self._open(identity[0]))
            self._channels[provider] = entry
        entry.users += 1
        try:
            yield entry.channel
        finally:
            entry.users -= 1
            entry.close_if_idle()

    def _socket(self, provider: str) -> _SocketIdentity:
        """Return the path and the identity of the first socket of that name."""
        if not _NAME.fullmatch(provider):
            raise ProviderNameInvalid(provider, f"^{_NAME.pattern}$")
        for directory in self._directories:
            path = directory / f"{provider}.sock"
            try:
                stat = path.stat()
            except OSError:
                continue
            # Inode numbers are used again; with the change time they tell sockets apart.
            return str(path), stat.st_dev, stat.st_ino, stat.st_ctime_ns
        raise ProviderNotFound(provider, [str(each) for each in self._directories])

    def _open(self, path: str) -> grpc.Channel:
        return grpc.insecure_channel(
            f"unix:{path}",
            options=[
                # Providers built on grpc-go reject any other; grpcio would send the path.
                ("grpc.default_authority", "localhost"),
                ("grpc.max_receive_message_length", self._max_reply_bytes),
                ("grpc.service_config", _SERVICE_CONFIG),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.enable_http_proxy", 0),
                # grpcio shares connections of equal channels; ours to an old socket must not live.
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )

    def _failure(
        self, provider: str, error: grpc.RpcError, timeout: float
    ) -> ProviderFailed | ContentTooLarge:
        # Not only logged: kubelet shows it in an event of the pod.
        code, details = error.code(), redact(error.details() or "")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details.lower():
            return ContentTooLarge(
                f'{ProviderFailed(code.name, details)}: the reply of provider "{provider}" is over '
                f"the limit of {self._max_reply_bytes} bytes; raise --max-call-recv-msg-size"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            details = f'provider "{provider}" did not answer within {timeout:.1f} s'
        return ProviderFailed(code.name, details)


def _message(call: MountCall) -> v1alpha1_pb2.MountRequest:
    return v1alpha1_pb2.MountRequest(
        attributes=call.attributes,
        secrets=call.secrets,
        target_path=call.target,
        permission=call.permission,
        current_object_version=[
            v1alpha1_pb2.ObjectVersion(id=each.id, version=each.version) for each in call.current
        ],
    )

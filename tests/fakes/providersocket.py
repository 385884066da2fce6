"""A secrets provider on a real unix socket: gRPC and all, with hooks for its answers."""

from __future__ import annotations

import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
from typing_extensions import override

from provider._pb import v1alpha1_pb2, v1alpha1_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


def mount_response(
    files: Mapping[str, bytes], *, mode: int = 0o644, version: str = "v1"
) -> v1alpha1_pb2.MountResponse:
    """Return the answer that brings `files`, one object each."""
    return v1alpha1_pb2.MountResponse(
        object_version=[
            v1alpha1_pb2.ObjectVersion(id=f"secret/{path}", version=version) for path in files
        ],
        files=[
            v1alpha1_pb2.File(path=path, mode=mode, contents=content)
            for path, content in files.items()
        ],
    )


class FakeProvider(v1alpha1_pb2_grpc.CSIDriverProviderServicer):
    """Answers Mount with `answer`, and as strictly as the reference's own fake.

    Attributes:
        answer: Makes the answer; may abort or wait.
        requests: Every request.
    """

    def __init__(self) -> None:
        """Answer with one secret."""
        self.answer: Callable[
            [v1alpha1_pb2.MountRequest, grpc.ServicerContext], v1alpha1_pb2.MountResponse
        ] = lambda *_: mount_response({"password": b"first"})
        self.requests: list[v1alpha1_pb2.MountRequest] = []

    @override
    def Version(
        self, request: v1alpha1_pb2.VersionRequest, context: grpc.ServicerContext
    ) -> v1alpha1_pb2.VersionResponse:
        """Say what it speaks."""
        return v1alpha1_pb2.VersionResponse(version="v1alpha1", runtime_name="fake")

    @override
    def Mount(
        self, request: v1alpha1_pb2.MountRequest, context: grpc.ServicerContext
    ) -> v1alpha1_pb2.MountResponse:
        """Check the request and give the answer."""
        self.requests.append(request)
        for text in (request.attributes, request.secrets, request.permission):
            json.loads(text)
        return self.answer(request, context)


@contextmanager
def provider_at(path: Path, fake: FakeProvider | None = None) -> Iterator[FakeProvider]:
    """Serve a provider at `path` inside the block; what is there is replaced by rename."""
    fake = fake or FakeProvider()
    pool = ThreadPoolExecutor(8, "fake-provider")
    server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
    v1alpha1_pb2_grpc.add_CSIDriverProviderServicer_to_server(fake, server)
    hidden = path.with_name(f".{secrets.token_hex(4)}")
    server.add_insecure_port(f"unix:{hidden}")
    server.start()
    hidden.rename(path)
    try:
        yield fake
    finally:
        server.stop(0).wait()
        pool.shutdown()

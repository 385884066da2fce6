"""Replies of a provider that cannot be shown: refused, without effect, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import grpc
import pytest

from fakes.providersocket import mount_response
from harness.refusals import CANARY, MOUNT_FAILED, Refusal, check_accepted, check_refused
from provider._pb import v1alpha1_pb2

if TYPE_CHECKING:
    from harness.kubelet import PodVolume
    from harness.node import Node

CONTENT: Final = CANARY.encode()
LIMIT: Final = 4 << 20  # the default of --max-call-recv-msg-size


@attrs.frozen(kw_only=True)
class Row:
    """One reply, and the answer to the publish."""

    reply: v1alpha1_pb2.MountResponse
    refusal: Refusal


def path_row(name: str, problem: str, *paths: str) -> Any:  # noqa: ANN401
    """Return the row of files that do not form a tree."""
    reply = v1alpha1_pb2.MountResponse(
        files=[v1alpha1_pb2.File(path=path, mode=0o644, contents=CONTENT) for path in paths],
        object_version=[v1alpha1_pb2.ObjectVersion(id="secret/x", version="1")],
    )
    refusal = Refusal(
        code=grpc.StatusCode.INVALID_ARGUMENT,
        starts=f"{MOUNT_FAILED}invalid file path ",
        field=repr(paths[-1])[:32],
        remedy=problem,
    )
    return pytest.param(Row(reply=reply, refusal=refusal), id=name)


def reply_row(
    name: str, code: grpc.StatusCode, reply: v1alpha1_pb2.MountResponse, **answer: str
) -> Any:  # noqa: ANN401
    """Return the row of a reply that is wrong as a whole."""
    return pytest.param(Row(reply=reply, refusal=Refusal(code=code, **answer)), id=name)


ROWS: Final = [
    path_row("path-climbs", "must not start with '..'", "../outside"),
    path_row("path-climbs-later", "must not contain '..'", "dir/../../outside"),
    path_row("path-ends-in-dots", "must not contain '..'", "dir/.."),
    path_row("reserved-name", "must not start with '..', which is reserved", "..data"),
    path_row("absolute-path", "must be relative", "/etc/shadow"),
    path_row("empty-path", "must not be empty", ""),
    path_row("path-with-nul", "must not contain NUL", "pass\0word"),
    path_row("element-of-300-bytes", "at most 255 bytes", "n" * 300),
    path_row("element-of-300-bytes-below", "at most 255 bytes", f"dir/{'n' * 300}"),
    path_row("umlauts-of-300-bytes", "at most 255 bytes", "ü" * 150),
    path_row("path-of-5000-characters", "at most 4095 bytes", "d/" * 2500 + "f"),
    path_row("path-with-dot", "must be clean", "dir/./file"),
    path_row("path-with-empty-element", "must be clean", "dir//file"),
    path_row("path-of-a-directory", "must be clean", "dir/"),
    path_row("one-name-for-two-objects", "give one an objectAlias", "password", "password"),
    path_row("file-where-directory-must-be", "is a file, but", "tls/key", "tls"),
    reply_row(
        "no-versions",
        grpc.StatusCode.FAILED_PRECONDITION,
        v1alpha1_pb2.MountResponse(files=[v1alpha1_pb2.File(path="a", contents=CONTENT)]),
        starts=f"{MOUNT_FAILED}missing object versions",
        field="object_version",
        remedy="name at least one object in spec.parameters",
    ),
    reply_row(
        "no-files",
        grpc.StatusCode.FAILED_PRECONDITION,
        v1alpha1_pb2.MountResponse(
            object_version=[v1alpha1_pb2.ObjectVersion(id="secret/a", version="1")]
        ),
        starts=f"{MOUNT_FAILED}no files in the reply",
        field='provider "fake"',
        remedy="driver-writes-secrets",
    ),
    reply_row(
        "error-code",
        grpc.StatusCode.FAILED_PRECONDITION,
        v1alpha1_pb2.MountResponse(error=v1alpha1_pb2.Error(code="VaultSealed")),
        starts=f"{MOUNT_FAILED}mount request failed with provider error code VaultSealed",
        field="provider",
        remedy="VaultSealed",
    ),
    reply_row(
        "over-the-size-limit",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        mount_response({"large": b"x" * LIMIT}),
        starts=f"{MOUNT_FAILED}rpc error: code = ResourceExhausted desc = ",
        field='the reply of provider "fake" is over the limit of 4194304 bytes',
        remedy="raise --max-call-recv-msg-size",
    ),
]


@pytest.mark.parametrize("case", ROWS)
def test_bad_reply_leaves_nothing(node: Node, volume: PodVolume, case: Row) -> None:
    """A bad reply is refused with field and remedy; put right, the same volume is published."""
    usual = node.provider.answer
    node.provider.answer = lambda *_: case.reply
    check_refused(node, volume, case.refusal)
    node.provider.answer = usual
    check_accepted(node, volume)


@pytest.mark.parametrize("code", ["NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "INTERNAL"])
def test_provider_status_reaches_kubelet(node: Node, volume: PodVolume, code: str) -> None:
    """A provider's own status arrives with its words, as the reference passes it."""
    usual = node.provider.answer
    node.provider.answer = lambda _, context: context.abort(grpc.StatusCode[code], "the reason")
    go_name = "".join(part.capitalize() for part in code.split("_"))
    refusal = Refusal(
        code=grpc.StatusCode[code],
        starts=f"{MOUNT_FAILED}rpc error: code = {go_name} desc = ",
        field="desc",
        remedy="the reason",
    )
    check_refused(node, volume, refusal)
    node.provider.answer = usual
    check_accepted(node, volume)

"""Bad input to a publish: what is answered, and that nothing is left (over the real socket).

Each row changes one thing of a valid example. The first words are the reference driver's where it
has them; the rest must name the field and the remedy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import grpc
import pytest

from csi import status
from csi._pb import csi_pb2
from csi.records import CLASS_KEY, POD_NAMESPACE_KEY
from fakes.kubelet import ROOT, publish_message
from fakes.nodeserver import served, write_class
from fakes.providersocket import mount_response, provider_at
from fusefs.errors import KernelUnsupported, OverBudget, TargetRefused
from provider._pb import v1alpha1_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fakes.keeper import Moment

MOUNT_FAILED = "failed to mount secrets store objects for pod shop/web, err: "


@attrs.frozen(kw_only=True)
class Row:
    """One bad input and the answer to it."""

    name: str
    code: str
    starts: str
    field: str
    remedy: str


@attrs.frozen(kw_only=True)
class RequestRow(Row):
    """A request that is wrong in itself."""

    change: Callable[[csi_pb2.NodePublishVolumeRequest], object]


def _set_target(path: str) -> Callable[[csi_pb2.NodePublishVolumeRequest], object]:
    return lambda message: setattr(message, "target_path", path)


def _layout_row(name: str, path: str) -> RequestRow:
    return RequestRow(
        name=name,
        change=_set_target(path),
        code="INVALID_ARGUMENT",
        starts=f"Target path {path!r} is not in kubelet's layout",
        field="target_path",
        remedy="set --kubelet-root",
    )


def _group_row(name: str, group: str) -> RequestRow:
    return RequestRow(
        name=name,
        change=lambda message: setattr(
            message.volume_capability.mount, "volume_mount_group", group
        ),
        code="INVALID_ARGUMENT",
        starts=f"Volume mount group {group!r} is not valid",
        field="volume_capability.mount.volume_mount_group",
        remedy="must be a number from 0 to 4294967294",
    )


def _context_row(name: str, context: str) -> RequestRow:
    return RequestRow(
        name=name,
        change=lambda message: message.volume_capability.mount.mount_flags.append(
            f"context={context}"
        ),
        code="INVALID_ARGUMENT",
        starts=f"SELinux context {context!r} is not valid",
        field="volume_capability.mount.mount_flags",
        remedy="must be USER:ROLE:TYPE[:LEVEL]",
    )


REQUESTS = [
    _context_row("label of one word", "container_file_t"),
    _context_row("label with an option behind it", "a:b:c:s0,allow_other=1"),
    _context_row("empty label", ""),
    RequestRow(
        name="no capability",
        change=lambda message: message.ClearField("volume_capability"),
        code="INVALID_ARGUMENT",
        starts="Volume capability missing in request",
        field="volume_capability",
        remedy="set volume_capability with a mount access type",
    ),
    RequestRow(
        name="no access type",
        change=lambda message: message.volume_capability.ClearField("mount"),
        code="INVALID_ARGUMENT",
        starts="Volume capability missing in request",
        field="volume_capability.mount",
        remedy="set volume_capability.mount",
    ),
    RequestRow(
        name="block volume",
        change=lambda message: message.volume_capability.block.SetInParent(),
        code="INVALID_ARGUMENT",
        starts="Volume capability not supported",
        field="volume_capability.block",
        remedy="use volumeMode: Filesystem",
    ),
    RequestRow(
        name="no volume id",
        change=lambda message: message.ClearField("volume_id"),
        code="INVALID_ARGUMENT",
        starts="Volume ID missing in request",
        field="volume_id",
        remedy="set volume_id",
    ),
    RequestRow(
        name="no target",
        change=lambda message: message.ClearField("target_path"),
        code="INVALID_ARGUMENT",
        starts="Target path missing in request",
        field="target_path",
        remedy="set target_path",
    ),
    RequestRow(
        name="no context",
        change=lambda message: message.ClearField("volume_context"),
        code="INVALID_ARGUMENT",
        starts="Volume attributes missing in request",
        field="volume_context",
        remedy="set podInfoOnMount in the CSIDriver",
    ),
    RequestRow(
        name="no class",
        change=lambda message: message.volume_context.pop(CLASS_KEY),
        code="INVALID_ARGUMENT",
        starts="secretProviderClass is not set",
        field=f'volume_context["{CLASS_KEY}"]',
        remedy="set volumeAttributes.secretProviderClass",
    ),
    RequestRow(
        name="empty class",
        change=lambda message: message.volume_context.update({CLASS_KEY: ""}),
        code="INVALID_ARGUMENT",
        starts="secretProviderClass is not set",
        field=f'volume_context["{CLASS_KEY}"]',
        remedy="set volumeAttributes.secretProviderClass",
    ),
    RequestRow(
        name="no namespace",
        change=lambda message: message.volume_context.pop(POD_NAMESPACE_KEY),
        code="INVALID_ARGUMENT",
        starts="Pod namespace missing in request",
        field=f'volume_context["{POD_NAMESPACE_KEY}"]',
        remedy="set podInfoOnMount: true in the CSIDriver",
    ),
    RequestRow(
        name="not read-only",
        change=lambda message: message.ClearField("readonly"),
        code="INVALID_ARGUMENT",
        starts="Readonly is not true in request",
        field="readonly",
        remedy="set csi.readOnly: true",
    ),
    _layout_row("relative target", "pods/u/volumes/kubernetes.io~csi/v/mount"),
    _layout_row("target outside kubelet's root", "/tmp/pods/u/volumes/kubernetes.io~csi/v/mount"),
    _layout_row("target is the root", ROOT),
    _layout_row("target of another plugin", f"{ROOT}/pods/u/volumes/kubernetes.io~nfs/v/mount"),
    _layout_row("target without mount", f"{ROOT}/pods/u/volumes/kubernetes.io~csi/v"),
    _layout_row("target below mount", f"{ROOT}/pods/u/volumes/kubernetes.io~csi/v/mount/x"),
    _layout_row(
        "target with a slash at its end", f"{ROOT}/pods/u/volumes/kubernetes.io~csi/v/mount/"
    ),
    _layout_row("target climbs by its pod", f"{ROOT}/pods/../volumes/kubernetes.io~csi/v/mount"),
    _layout_row("target climbs by its volume", f"{ROOT}/pods/u/volumes/kubernetes.io~csi/../mount"),
    _layout_row("target with a dot", f"{ROOT}/pods/./volumes/kubernetes.io~csi/v/mount"),
    _layout_row("target with an empty element", f"{ROOT}/pods//volumes/kubernetes.io~csi/v/mount"),
    _layout_row("target with NUL", f"{ROOT}/pods/u\0/volumes/kubernetes.io~csi/v/mount"),
    _group_row("group is a name", "staff"),
    _group_row("group is negative", "-1"),
    _group_row("group is (gid_t) -1", "4294967295"),
    _group_row("group in other digits", "\u0661"),
]


def _name(row: Row) -> str:
    return row.name.replace(" ", "-")


def _check(row: Row, code: str, message: str) -> None:
    assert code == row.code, message
    assert message.startswith(row.starts), message
    assert row.field in message[len(row.starts) :] or row.field in row.starts, message
    assert row.remedy in message, message
    assert "canary" not in message


@pytest.mark.parametrize("row", REQUESTS, ids=_name)
async def test_bad_request_is_refused_before_any_effect(tmp_path: Path, row: RequestRow) -> None:
    """A request that is wrong in itself is refused before class, provider or keeper are asked."""
    message = publish_message()
    row.change(message)
    async with served(tmp_path) as node:
        with provider_at(tmp_path / "azure.sock") as provider:
            code, details = await node.fails(node.node.NodePublishVolume, message)
    _check(row, code, details)
    assert (provider.requests, node.keeper.calls, node.keeper.kept) == ([], [], {})


@attrs.frozen(kw_only=True)
class ClassRow(Row):
    """A class that cannot be used; None: there is none."""

    provider: str | None = "azure"
    parameters: str = '{keyvaultName: "kv"}'


CLASSES = [
    ClassRow(
        name="unknown class",
        provider=None,
        code="NOT_FOUND",
        starts="failed to get secretproviderclass shop/vault, error: "
        'secretproviderclasses.secrets-store.csi.x-k8s.io "vault" not found',
        field="volumeAttributes.secretProviderClass",
        remedy="create the class in the pod's namespace",
    ),
    ClassRow(
        name="class without provider",
        provider='""',
        code="FAILED_PRECONDITION",
        starts="provider not set in shop/vault",
        field="spec.provider",
        remedy="name the provider",
    ),
    ClassRow(
        name="class without parameters",
        parameters="{}",
        code="FAILED_PRECONDITION",
        starts="parameters not set in shop/vault",
        field="spec.parameters",
        remedy="name at least the objects to show",
    ),
    ClassRow(
        name="class with a number",
        parameters="{tenantID: 1}",
        code="FAILED_PRECONDITION",
        starts="wrong type in shop/vault",
        field="spec.parameters",
        remedy="put numbers and booleans in quotes",
    ),
    ClassRow(
        name="unknown provider",
        provider="nobody",
        code="FAILED_PRECONDITION",
        starts=MOUNT_FAILED + 'provider not found: provider "nobody"',
        field="spec.provider",
        remedy="install the provider on this node",
    ),
    ClassRow(
        name="provider name that climbs",
        provider="../azure",
        code="FAILED_PRECONDITION",
        starts=MOUNT_FAILED + 'invalid provider: provider "../azure"',
        field="spec.provider",
        remedy="must match ^[a-zA-Z0-9_-]{0,30}$",
    ),
    ClassRow(
        name="interval without unit",
        parameters='{a: b, akvfs/rotationPollInterval: "120"}',
        code="FAILED_PRECONDITION",
        starts="option not understood in shop/vault",
        field='spec.parameters["akvfs/rotationPollInterval"]',
        remedy="write a number and a unit",
    ),
    ClassRow(
        name="file system that is not available",
        parameters="{a: b, akvfs/filesystem: ramfs}",
        code="FAILED_PRECONDITION",
        starts="option 'ramfs' is not available in shop/vault",
        field='spec.parameters["akvfs/filesystem"]',
        remedy="use one of: auto, fuse, tmpfs",
    ),
]


@pytest.mark.parametrize("row", CLASSES, ids=_name)
async def test_class_that_cannot_be_used_is_refused(tmp_path: Path, row: ClassRow) -> None:
    """A missing or unusable class is told with its field, and neither side is asked."""
    if row.provider is not None:
        write_class(tmp_path, provider=row.provider, parameters=row.parameters)
    async with served(tmp_path) as node:
        with provider_at(tmp_path / "azure.sock") as provider:
            code, details = await node.fails(node.node.NodePublishVolume, publish_message())
    _check(row, code, details)
    assert (provider.requests, node.keeper.calls, node.keeper.kept) == ([], [], {})


@attrs.frozen(kw_only=True)
class ReplyRow(Row):
    """A provider's reply that cannot be shown; `calls` is what the keeper is told."""

    reply: v1alpha1_pb2.MountResponse
    calls: tuple[str, ...] = ()


def _path_row(name: str, problem: str, *paths: str) -> ReplyRow:
    versions = [v1alpha1_pb2.ObjectVersion(id=f"secret/{path}", version="1") for path in paths]
    files = [v1alpha1_pb2.File(path=path, mode=0o644, contents=b"x") for path in paths]
    return ReplyRow(
        name=name,
        reply=v1alpha1_pb2.MountResponse(object_version=versions, files=files),
        code="INVALID_ARGUMENT",
        starts=MOUNT_FAILED + "invalid file path",
        field="file path",
        remedy=problem,
    )


REPLIES = [
    _path_row("path climbs", "must not start with '..'", "../outside"),
    _path_row("path climbs later", "must not contain '..'", "a/../../outside"),
    _path_row("absolute path", "must be relative", "/etc/shadow"),
    _path_row("empty path", "must not be empty", ""),
    _path_row("path with NUL", "must not contain NUL", "pass\0word"),
    _path_row("path with a slash at its end", "must be clean", "dir/"),
    _path_row("element of 300 bytes", "at most 255 bytes", "n" * 300),
    _path_row("reserved name", "reserved", "..data"),
    _path_row("two objects with one name", "give one an objectAlias", "same", "same"),
    _path_row("file where a directory must be", "needs a directory", "tls", "tls/key"),
    ReplyRow(
        name="no versions",
        reply=v1alpha1_pb2.MountResponse(files=[v1alpha1_pb2.File(path="a", contents=b"x")]),
        code="FAILED_PRECONDITION",
        starts=MOUNT_FAILED + "missing object versions",
        field="object_version",
        remedy="name at least one object in spec.parameters",
    ),
    ReplyRow(
        name="no files",
        reply=v1alpha1_pb2.MountResponse(
            object_version=[v1alpha1_pb2.ObjectVersion(id="secret/a", version="1")]
        ),
        code="FAILED_PRECONDITION",
        starts=MOUNT_FAILED + "no files in the reply",
        field='provider "azure"',
        remedy="driver-writes-secrets",
        calls=("unpublish",),  # it may have put files into the target
    ),
    ReplyRow(
        name="error code",
        reply=v1alpha1_pb2.MountResponse(error=v1alpha1_pb2.Error(code="NoSuchVault")),
        code="FAILED_PRECONDITION",
        starts=MOUNT_FAILED + "mount request failed with provider error code NoSuchVault",
        field="NoSuchVault",
        remedy="NoSuchVault",
    ),
    ReplyRow(
        name="reply over the limit",
        reply=mount_response({"large": b"x" * (1 << 16)}),
        code="RESOURCE_EXHAUSTED",
        starts=MOUNT_FAILED + "rpc error: code = ResourceExhausted desc = ",
        field='provider "azure"',
        remedy="raise --max-call-recv-msg-size",
    ),
]


@pytest.mark.parametrize("row", REPLIES, ids=_name)
async def test_reply_that_cannot_be_shown_leaves_nothing(tmp_path: Path, row: ReplyRow) -> None:
    """A reply that is no tree, incomplete or too large fails the publish, nothing is mounted."""
    write_class(tmp_path)
    async with served(tmp_path, max_reply_bytes=1 << 15) as node:
        with provider_at(tmp_path / "azure.sock") as provider:
            provider.answer = lambda *_: row.reply
            code, details = await node.fails(node.node.NodePublishVolume, publish_message())
    _check(row, code, details)
    assert (node.keeper.calls, node.keeper.kept) == ([*row.calls], {})


@pytest.mark.parametrize("name", ["PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND", "UNKNOWN"])
async def test_provider_status_passes_through(tmp_path: Path, name: str) -> None:
    """The provider's own code and words reach kubelet in the reference's form."""
    write_class(tmp_path)
    async with served(tmp_path) as node:
        with provider_at(tmp_path / "azure.sock") as provider:
            provider.answer = lambda _, context: context.abort(grpc.StatusCode[name], "why")
            code, details = await node.fails(node.node.NodePublishVolume, publish_message())
    go_name = "".join(part.capitalize() for part in name.split("_"))
    assert (code, details) == (name, f"{MOUNT_FAILED}rpc error: code = {go_name} desc = why")


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (TargetRefused("target holds a mount that is not ours; unmount it"), "FAILED_PRECONDITION"),
        (TargetRefused("target does not follow the layout", layout=True), "INVALID_ARGUMENT"),
        (KernelUnsupported("no RESEND; Linux 6.9 has it"), "FAILED_PRECONDITION"),
        (OverBudget("the snapshot is over the budget"), "RESOURCE_EXHAUSTED"),
    ],
)
async def test_refusal_of_the_keeper_reaches_kubelet(
    tmp_path: Path, refusal: Exception, code: str
) -> None:
    """What the keeper refuses is told with its words; the volume is forgotten."""

    async def refuse(_: str, moment: Moment) -> None:
        if moment == "before":
            raise refusal

    write_class(tmp_path)
    async with served(tmp_path) as node:
        node.keeper.hook = refuse
        with provider_at(tmp_path / "azure.sock"):
            assert await node.fails(node.node.NodePublishVolume, publish_message()) == (
                code,
                status.message_of(refusal),
            )
    assert node.keeper.kept == {}


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"empty": b""}, 4 << 20),
        ({"large": b"x" * (1 << 20)}, 4 << 20),
        ({f"object-{number}": b"v" for number in range(500)}, 4 << 20),
        ({"a/b/c": b"deep", "a/d": b"x"}, 4 << 20),
        ({"n" * 255: b"longest name"}, 4 << 20),
    ],
    ids=["empty-secret", "one-mebibyte", "500-objects", "directories", "longest-name"],
)
async def test_unusual_content_is_accepted(
    tmp_path: Path, files: dict[str, bytes], limit: int
) -> None:
    """Content at the edges of what is allowed is shown as it is."""
    write_class(tmp_path)
    async with served(tmp_path, max_reply_bytes=limit) as node:
        with provider_at(tmp_path / "azure.sock") as provider:
            provider.answer = lambda *_: mount_response(files)
            await node.call(node.node.NodePublishVolume, publish_message())
        assert node.keeper.shown("csi-web") == files


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda message: message.ClearField("volume_id"), "volume_id"),
        (lambda message: message.ClearField("target_path"), "target_path"),
    ],
    ids=["no-volume-id", "no-target"],
)
async def test_unpublish_without_a_name_is_refused(
    tmp_path: Path,
    change: Callable[[csi_pb2.NodeUnpublishVolumeRequest], object],
    field: str,
) -> None:
    """An unpublish needs a volume and a target, and nothing else."""
    message = csi_pb2.NodeUnpublishVolumeRequest(volume_id="v", target_path="/t")
    change(message)
    async with served(tmp_path) as node:
        code, details = await node.fails(node.node.NodeUnpublishVolume, message)
    assert code == "INVALID_ARGUMENT"
    assert "missing in request" in details
    assert details.endswith(f"{field}: set {field}")
    assert node.keeper.calls == []

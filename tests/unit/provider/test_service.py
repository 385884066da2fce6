"""The gRPC services over a unix socket, with vaults in memory."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from typing import TYPE_CHECKING, Final

import attrs
import grpc
import pytest
from grpc_health.v1 import health_pb2

from fakes.keyvault import FakeClouds, FakeVaults, attributes, objects_text
from provider import errors
from provider._pb import v1alpha1_pb2 as pb
from provider._pb import v1alpha1_pb2_grpc as pb_grpc
from provider.errors import ProviderError, Stopped, Throttled
from provider.mounts import Mounter
from provider.server import serving
from provider.service import CODES, ProviderService, code_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CANARY: Final = "canary-5eed"
WAIT_S: Final = 10.0


def request(**changes: str | None) -> pb.MountRequest:
    """Return a valid request with some changes to its attributes."""
    return pb.MountRequest(
        attributes=json.dumps(attributes(**changes)),
        secrets=json.dumps({"clientid": "app", "clientsecret": CANARY}),
        permission="420",
    )


@pytest.fixture
def vaults() -> FakeVaults:
    """Return the vaults that are served."""
    return FakeVaults(values={"db": "v"})


@contextlib.contextmanager
def connected(
    vaults: FakeVaults, path: Path, *, mounts_at_once: int = 16
) -> Iterator[grpc.Channel]:
    """Serve vaults, and connect as a driver does."""
    mounter = Mounter(clouds=FakeClouds(), vaults=vaults)
    service = ProviderService(mounter, version="1.2.3", mounts_at_once=mounts_at_once)
    with serving(service, path, grace=WAIT_S), grpc.insecure_channel(f"unix:{path}") as channel:
        yield channel


@pytest.fixture
def channel(vaults: FakeVaults, tmp_path: Path) -> Iterator[grpc.Channel]:
    """Serve and connect."""
    with connected(vaults, tmp_path / "p.sock") as made:
        yield made


@pytest.fixture
def stub(channel: grpc.Channel) -> pb_grpc.CSIDriverProviderStub:
    """Return a client of the provider protocol."""
    return pb_grpc.CSIDriverProviderStub(channel)


@attrs.frozen
class Refusal:
    """How a mount ended without an answer."""

    code: grpc.StatusCode
    details: str
    metadata: Mapping[str, object]


def refusal(
    stub: pb_grpc.CSIDriverProviderStub, given: pb.MountRequest, timeout: float = WAIT_S
) -> Refusal:
    """Return the error of a mount."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.Mount(given, timeout=timeout)
    error = caught.value
    metadata = {pair.key: pair.value for pair in error.trailing_metadata() or ()}
    return Refusal(error.code(), error.details() or "", metadata)


def test_version_says_what_drivers_expect(stub: pb_grpc.CSIDriverProviderStub) -> None:
    """Protocol and runtime name are the reference's."""
    answer = stub.Version(pb.VersionRequest(version="v1alpha1"), timeout=WAIT_S)
    assert (answer.version, answer.runtime_name, answer.runtime_version) == (
        "v1alpha1",
        "secrets-store-csi-driver-provider-azure",
        "1.2.3",
    )


@pytest.mark.parametrize("name", ["", "v1alpha1.CSIDriverProvider"])
def test_the_health_service_says_serving(channel: grpc.Channel, name: str) -> None:
    """Kubelet's gRPC probe works on the socket."""
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer = check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_mount_answers_files_and_versions(
    vaults: FakeVaults, stub: pb_grpc.CSIDriverProviderStub
) -> None:
    """Every file has an entry among the versions."""
    vaults.values["raw"] = "00ff"
    answer = stub.Mount(
        request(
            objects=objects_text(
                {"objectName": "db", "objectType": "secret", "objectAlias": "d/pw"},
                {"objectName": "raw", "objectType": "secret", "objectEncoding": "hex"},
            )
        ),
        timeout=WAIT_S,
    )
    assert [(f.path, f.mode, f.contents) for f in answer.files] == [
        ("d/pw", 0o644, b"v"),
        ("raw", 0o644, b"\x00\xff"),
    ]
    assert [(v.id, v.version) for v in answer.object_version] == [
        ("secret/db", "current"),
        ("secret/raw", "current"),
    ]
    assert not answer.HasField("error")


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("attributes", "", "failed to unmarshal attributes, error: unexpected end of JSON input"),
        ("secrets", "", "failed to unmarshal secrets, error: unexpected end of JSON input"),
        ("permission", "", "failed to unmarshal file permission, error: unexpected end of JSON"),
    ],
)
def test_an_undecodable_request_is_invalid(
    stub: pb_grpc.CSIDriverProviderStub, field: str, text: str, message: str
) -> None:
    """The reference's texts, which have no other prefix."""
    given = request()
    setattr(given, field, text)
    error = refusal(stub, given)
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details.startswith(message)


def test_a_refused_mount_has_prefix_and_code(stub: pb_grpc.CSIDriverProviderStub) -> None:
    """The reference's prefix is in front of whatever went wrong."""
    given = request(objects=objects_text({"objectName": "no", "objectType": "secret"}))
    error = refusal(stub, given)
    assert error.code == grpc.StatusCode.NOT_FOUND
    assert error.details.startswith(
        "failed to mount objects, error: "
        "failed to get objectType:secret, objectName:no, objectVersion:: SecretNotFound no"
    )


def every_error() -> list[type[ProviderError]]:
    """Return every class of the error tree that is raised."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    ours = [kind for kind in kinds if issubclass(kind, ProviderError)]
    return [kind for kind in ours if kind not in {ProviderError, Stopped}]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_has_a_row_in_the_table(kind: type[ProviderError]) -> None:
    """The table is complete, and an error's own row comes before its base's."""
    rows = [row for row, _ in CODES]
    fitting = [row for row in rows if issubclass(kind, row)]
    assert fitting, f"{kind.__name__} has no code"
    assert code_of(kind("x")) == dict(CODES)[fitting[0]]
    assert all(not issubclass(other, fitting[0]) for other in fitting[1:])


def test_each_code_is_given_to_one_kind() -> None:
    """A caller can tell the kinds apart."""
    codes = [code for _, code in CODES]
    assert len(codes) == len(set(codes))


def test_throttling_tells_how_long(vaults: FakeVaults, stub: pb_grpc.CSIDriverProviderStub) -> None:
    """A driver that wants to wait as asked finds the seconds in the trailing metadata."""

    def throttle(_: object) -> None:
        message = "429"
        raise Throttled(message, retry_after=77.0)

    vaults.before_read = throttle
    error = refusal(stub, request())
    assert error.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.metadata["retry-after"] == "77"


def test_a_defect_is_internal_and_not_quoted(
    vaults: FakeVaults, stub: pb_grpc.CSIDriverProviderStub, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows what the text of an unexpected exception holds."""

    def fail(_: object) -> None:
        raise KeyError(CANARY)

    vaults.before_read = fail
    error = refusal(stub, request())
    assert error.code == grpc.StatusCode.INTERNAL
    assert CANARY not in error.details + caplog.text
    assert "KeyError < " in caplog.text


def test_a_long_error_still_arrives(stub: pb_grpc.CSIDriverProviderStub) -> None:
    """A status that is too large for its header would hide the error behind another one."""
    name = "é\n" * 5_000
    error = refusal(
        stub, request(objects=objects_text({"objectName": name, "objectType": "secret"}))
    )
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details.startswith("failed to mount objects, error: failed to get objectType")


def test_a_slow_vault_answers_before_the_deadline(
    vaults: FakeVaults, stub: pb_grpc.CSIDriverProviderStub
) -> None:
    """The answer with its reason is there before the caller gives up."""
    release = threading.Event()

    def hold(_: object) -> None:
        release.wait(WAIT_S)

    vaults.before_read = hold
    error = refusal(stub, request(), timeout=2.0)
    release.set()
    assert error.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "objectName:db, objectVersion:: context deadline exceeded" in error.details


def test_a_caller_without_a_deadline_is_served(stub: pb_grpc.CSIDriverProviderStub) -> None:
    """A call without a deadline gets a bound of ours."""
    assert len(stub.Mount(request()).files) == 1


def test_waiting_mounts_leave_health_alone(vaults: FakeVaults, tmp_path: Path) -> None:
    """A full house answers what needs no vault, and refuses in time what does."""
    release, arrived = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        arrived.set()
        release.wait(WAIT_S)

    vaults.before_read = hold
    with connected(vaults, tmp_path / "p.sock", mounts_at_once=1) as channel:
        stub = pb_grpc.CSIDriverProviderStub(channel)
        held = stub.Mount.future(request(), timeout=WAIT_S)
        assert arrived.wait(WAIT_S)
        error = refusal(stub, request(), timeout=1.0)
        assert error.code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert stub.Version(pb.VersionRequest(), timeout=WAIT_S).version == "v1alpha1"
        release.set()
        assert len(held.result().files) == 1


def test_a_caller_that_hangs_up_frees_its_place(vaults: FakeVaults, tmp_path: Path) -> None:
    """Cancelling a call ends its work, so the next one finds room."""
    release, arrived = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        arrived.set()
        release.wait(WAIT_S)

    vaults.before_read = hold
    with connected(vaults, tmp_path / "p.sock", mounts_at_once=1) as channel:
        stub = pb_grpc.CSIDriverProviderStub(channel)
        held = stub.Mount.future(request(), timeout=60)
        assert arrived.wait(WAIT_S)
        held.cancel()
        vaults.before_read = lambda _: None
        assert len(stub.Mount(request(), timeout=WAIT_S).files) == 1
        release.set()


def test_no_secret_gets_into_the_log(
    vaults: FakeVaults, stub: pb_grpc.CSIDriverProviderStub, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a value nor a client secret is logged, whatever the level and the outcome."""
    caplog.set_level(logging.DEBUG)
    vaults.values["db"] = CANARY
    bad = objects_text(
        {"objectName": "db", "objectType": "secret", "objectEncoding": "base64"},
    )
    assert stub.Mount(request(), timeout=WAIT_S).files[0].contents == CANARY.encode()
    details = refusal(stub, request(objects=bad)).details
    assert "mount answered" in caplog.text
    assert "mount refused" in caplog.text
    assert CANARY not in caplog.text + details
    assert all(CANARY not in repr(vars(record)) for record in caplog.records)

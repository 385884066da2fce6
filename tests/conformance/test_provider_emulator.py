"""The whole provider program against the emulator: real gRPC, real SDK, real TLS, real names.

The provider runs as in a cluster, as a process of its own, with the emulator's names resolved in
its own mount namespace. A canary (each secret value, the client secret) must be found in no log and
no error, whatever happened.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import attrs
import grpc
import pytest

from fakes.azurepeer import Answer, azure_peer
from harness.programs import Program
from provider._pb import v1alpha1_pb2 as pb
from provider._pb import v1alpha1_pb2_grpc as pb_grpc
from provider.emulator import EmulatorClient, EmulatorConfig, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TENANT: Final = "6f1c6a0e-0000-4000-8000-000000000001"
OTHER_TENANT: Final = "6f1c6a0e-0000-4000-8000-000000000002"
CLIENT: Final = "0b5f2c1e-0000-4000-8000-000000000001"
STRANGER: Final = "0b5f2c1e-0000-4000-8000-000000000002"
CLIENT_SECRET: Final = "canary-of-the-app"
VALUE: Final = "canary-of-the-vault"
CONFIG: Final = f"""
tenant: {TENANT}
principals:
  app: {{client_id: {CLIENT}, client_secret: {CLIENT_SECRET}}}
  stranger: {{client_id: {STRANGER}, client_secret: {CLIENT_SECRET}}}
vaults:
  demo:
    access: {{app: [get, list, set, delete, recover]}}
    secrets:
      db-password: {VALUE}
      packed: AAEC/w==
      sleeping: {{value: {VALUE}, enabled: false}}
      empty: ""
      expired: {{value: {VALUE}, expires: 946684800}}
  second:
    access: {{app: [get]}}
    secrets: {{db-password: {VALUE} of the second vault}}
  abroad:
    tenant: {OTHER_TENANT}
    access: {{app: [get]}}
    secrets: {{db-password: {VALUE}}}
"""
WAIT_S: Final = 20.0


@attrs.frozen
class Refusal:
    """How a mount ended without an answer."""

    code: grpc.StatusCode
    details: str
    metadata: dict[str, str]


@attrs.define
class Driver:
    """Plays the driver's part: sends mount requests, keeps what was answered in errors."""

    stub: pb_grpc.CSIDriverProviderStub
    cloud_file: str
    errors: list[str] = attrs.field(factory=list)

    def mount(
        self,
        *objects: dict[str, str],
        client: str = CLIENT,
        secret: str = CLIENT_SECRET,
        timeout: float = WAIT_S,
        **changes: str,
    ) -> pb.MountResponse:
        """Mount objects of the demo vault, or of what the changes say."""
        texts = [json.dumps({"objectType": "secret"} | wanted) for wanted in objects]
        attributes = {
            "csi.storage.k8s.io/pod.name": "web-0",
            "csi.storage.k8s.io/pod.namespace": "shop",
            "keyvaultName": "demo",
            "tenantID": TENANT,
            "cloudName": "AzureStackCloud",
            "cloudEnvFileName": self.cloud_file,
            "objects": json.dumps({"array": texts}),
        } | changes
        request = pb.MountRequest(
            attributes=json.dumps(attributes),
            secrets=json.dumps({"clientid": client, "clientsecret": secret}),
            permission="420",
        )
        return self.stub.Mount(request, timeout=timeout)

    def refused(self, *objects: dict[str, str], timeout: float = WAIT_S, **changes: str) -> Refusal:
        """Return the error of a mount."""
        with pytest.raises(grpc.RpcError) as caught:
            self.mount(*objects, timeout=timeout, **changes)
        error = caught.value
        self.errors.append(error.details() or "")
        metadata = {str(pair.key): str(pair.value) for pair in error.trailing_metadata() or ()}
        return Refusal(error.code(), error.details() or "", metadata)


DB: Final = {"objectName": "db-password"}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorClient]:
    """Run the emulator for the tests of this module."""
    with running(EmulatorConfig.parse(CONFIG), tmp_path_factory.mktemp("emulator")) as client:
        yield client


def provider_program(directory: Path, hosts: Path, trusted: Path, clouds: Path) -> Program:
    """Start the provider where the names of `hosts` resolve and `trusted` signs."""
    environment = [f"REQUESTS_CA_BUNDLE={trusted}", "NO_PROXY=*", "no_proxy=*"]
    flags = [
        f"--endpoint=unix://{directory}/azure.sock",
        f"--cloud-files-dir={clouds}",
        "--log-format-json",
        "--log-level=debug",
    ]
    names = ["provider.emulator.hosts", "--hosts-file", str(hosts), "--"]
    program = Program(
        "provider",
        [*names, "env", *environment, sys.executable, "-m", "provider", *flags],
        log=directory / "provider.log",
    )
    program.wait_until((directory / "azure.sock").exists, "the provider's socket")
    return program


@pytest.fixture(scope="module")
def program(
    emulator: EmulatorClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """Run the provider for the tests of this module; its log must not hold a secret."""
    directory = tmp_path_factory.mktemp("provider")
    with provider_program(
        directory, emulator.hosts_file, emulator.ca_file, emulator.cloud_file.parent
    ) as started:
        yield started
        log = started.log
    assert "mount answered" in log
    assert "canary" not in log


@pytest.fixture
def driver(
    program: Program, emulator: EmulatorClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driver]:
    """Connect to the provider; its errors must not hold a secret, and no fault is left."""
    sockets = list(tmp_path_factory.getbasetemp().glob("provider*/azure.sock"))
    with grpc.insecure_channel(
        f"unix:{sockets[-1]}", options=[("grpc.default_authority", "localhost")]
    ) as channel:
        made = Driver(pb_grpc.CSIDriverProviderStub(channel), str(emulator.cloud_file))
        yield made
    emulator.clear_faults()
    assert not [text for text in made.errors if "canary" in text]
    assert not program.ended()


def test_secrets_are_delivered(driver: Driver) -> None:
    """Alias, encoding, permission and an empty secret, each with its version."""
    answer = driver.mount(
        DB | {"objectAlias": "db/password", "filePermission": "0400"},
        {"objectName": "packed", "objectEncoding": "base64"},
        {"objectName": "empty"},
        {"objectName": "expired"},
    )
    assert [(f.path, f.mode, f.contents) for f in answer.files] == [
        ("db/password", 0o400, VALUE.encode()),
        ("packed", 0o644, b"\x00\x01\x02\xff"),
        ("empty", 0o644, b""),
        ("expired", 0o644, VALUE.encode()),
    ]
    assert [entry.id for entry in answer.object_version] == [
        "secret/db-password",
        "secret/packed",
        "secret/empty",
        "secret/expired",
    ]
    assert all(len(entry.version) == 32 for entry in answer.object_version)


def test_a_version_can_be_pinned(driver: Driver, emulator: EmulatorClient) -> None:
    """An old version stays readable by its id while the current one moves on."""
    old = emulator.set_secret("demo", "rotating", "one")
    new = emulator.set_secret("demo", "rotating", "two")
    answer = driver.mount(
        {"objectName": "rotating", "objectAlias": "pinned", "objectVersion": old},
        {"objectName": "rotating", "objectAlias": "current"},
    )
    assert [f.contents for f in answer.files] == [b"one", b"two"]
    assert [entry.version for entry in answer.object_version] == [old, new]


def test_each_class_reads_its_own_vault(driver: Driver) -> None:
    """The vault's name leads to its host."""
    answer = driver.mount(DB, keyvaultName="second")
    assert answer.files[0].contents == f"{VALUE} of the second vault".encode()


def test_many_objects_are_read_at_the_same_time(driver: Driver, emulator: EmulatorClient) -> None:
    """Eight slow reads take the time of three: the first, then four at a time."""
    names = [f"slow-{number}" for number in range(8)]
    for name in names:
        emulator.set_secret("demo", name, name)
        emulator.fault("slow", name=name, seconds=0.3)
    began = time.monotonic()
    answer = driver.mount(*({"objectName": name} for name in names))
    assert [f.contents.decode() for f in answer.files] == names
    assert time.monotonic() - began < 8 * 0.3


@pytest.mark.parametrize(
    ("wanted", "code", "words"),
    [
        pytest.param(
            {"objectName": "missing"},
            grpc.StatusCode.NOT_FOUND,
            "RESPONSE 404 ERROR CODE: SecretNotFound",
            id="missing",
        ),
        pytest.param(
            DB | {"objectVersion": "0" * 32}, grpc.StatusCode.NOT_FOUND, "404", id="no-version"
        ),
        pytest.param(
            DB | {"objectVersion": "latest"}, grpc.StatusCode.NOT_FOUND, "404", id="latest"
        ),
        pytest.param(
            {"objectName": "sleeping"},
            grpc.StatusCode.PERMISSION_DENIED,
            "enable the secret's current version",
            id="disabled",
        ),
        pytest.param(
            DB | {"objectEncoding": "base64"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "illegal base64 data at input byte 6 (objectType:secret, objectName:db-password",
            id="not-base64",
        ),
        pytest.param(
            DB | {"objectType": "key"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "objectType key is not supported yet",
            id="key",
        ),
    ],
)
def test_a_bad_object_is_refused(
    driver: Driver, wanted: dict[str, str], code: grpc.StatusCode, words: str
) -> None:
    """Each mistake has its code and its words behind the reference's prefix."""
    refusal = driver.refused(DB | {"objectAlias": "good"}, wanted)
    assert refusal.code == code
    assert refusal.details.startswith("failed to mount objects, error: ")
    assert words in refusal.details


def test_a_deleted_secret_is_not_found(driver: Driver, emulator: EmulatorClient) -> None:
    """Deleted looks like missing, and comes back when it is recovered."""
    emulator.set_secret("demo", "short-lived", "x")
    emulator.delete("demo", "short-lived")
    assert driver.refused({"objectName": "short-lived"}).code == grpc.StatusCode.NOT_FOUND
    emulator.recover("demo", "short-lived")
    assert driver.mount({"objectName": "short-lived"}).files[0].contents == b"x"


def test_a_stranger_is_denied(driver: Driver) -> None:
    """A principal without access is known and refused."""
    refusal = driver.refused(DB, client=STRANGER)
    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED
    assert f"give client {STRANGER} the role Key Vault Secrets User" in refusal.details


def test_a_wrong_secret_is_unauthenticated(driver: Driver, emulator: EmulatorClient) -> None:
    """Entra ID's own code is told; one token request was made, not one for each object."""
    emulator.reset_log()
    refusal = driver.refused(DB, {"objectName": "packed"}, secret="canary-that-is-wrong")
    assert refusal.code == grpc.StatusCode.UNAUTHENTICATED
    assert "AADSTS7000215" in refusal.details
    assert len(emulator.request_log("token")) == 1


def test_a_foreign_tenant_is_unauthenticated(driver: Driver) -> None:
    """A vault of another tenant cannot be read; the remedy names tenantID."""
    refusal = driver.refused(DB, keyvaultName="abroad")
    assert refusal.code == grpc.StatusCode.UNAUTHENTICATED
    assert f"that tenantID ({TENANT}) is the tenant of vault abroad" in refusal.details


def test_throttling_is_waited_out(driver: Driver, emulator: EmulatorClient) -> None:
    """Two refusals cost some seconds and nothing else."""
    emulator.fault("throttle", name="db-password", count=2, retry_after=1)
    assert driver.mount(DB).files[0].contents == VALUE.encode()


def test_lasting_throttling_is_told(driver: Driver, emulator: EmulatorClient) -> None:
    """A vault that asks for more time than there is ends the mount at once, with the seconds."""
    emulator.fault("throttle", name="db-password", count=None, retry_after=60)
    began = time.monotonic()
    refusal = driver.refused(DB)
    assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.metadata["retry-after"] == "60"
    assert time.monotonic() - began < WAIT_S / 2


@pytest.mark.parametrize("kind", ["reset", "truncate", "error"])
def test_passing_faults_are_waited_out(driver: Driver, emulator: EmulatorClient, kind: str) -> None:
    """A reset, half an answer and a 500 are tried again."""
    emulator.fault(kind, name="db-password")
    assert driver.mount(DB).files[0].contents == VALUE.encode()


def test_a_slow_vault_does_not_outlast_the_deadline(
    driver: Driver, emulator: EmulatorClient
) -> None:
    """The reason arrives before the caller's deadline."""
    emulator.fault("slow", name="db-password", count=None, seconds=10)
    refusal = driver.refused(DB, timeout=3.0)
    assert refusal.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "objectName:db-password, objectVersion:: context deadline exceeded" in refusal.details


def test_rotation_is_seen_by_the_next_mount(driver: Driver, emulator: EmulatorClient) -> None:
    """Nothing between vault and driver remembers a value."""
    for value in ("first", "second", "third"):
        version = emulator.set_secret("demo", "changing", value)
        answer = driver.mount({"objectName": "changing"})
        assert answer.files[0].contents == value.encode()
        assert answer.object_version[0].version == version


def test_mounts_of_many_pods_at_once(driver: Driver) -> None:
    """More pods than places: all of them are served."""
    answers: list[bytes] = []

    def mount() -> None:
        answers.append(driver.mount(DB, {"objectName": "packed"}).files[0].contents)

    threads = [threading.Thread(target=mount) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [VALUE.encode()] * 40


def test_a_cloud_file_elsewhere_is_refused(driver: Driver, tmp_path: Path) -> None:
    """A class cannot bring its own cloud, and so cannot have the secret sent to its own host."""
    (tmp_path / "mine.json").write_text(
        json.dumps({"activeDirectoryEndpoint": "https://evil.test/", "keyVaultDNSSuffix": "evil"})
    )
    refusal = driver.refused(DB, cloudEnvFileName=str(tmp_path / "mine.json"))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "that --cloud-files-dir allows" in refusal.details


def test_a_vault_name_that_does_not_resolve_is_told(driver: Driver) -> None:
    """The whole program resolves names, so a typo shows as one."""
    refusal = driver.refused(DB, keyvaultName="typo", timeout=3)
    assert refusal.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


def test_a_foreign_challenge_gets_no_token(tmp_path: Path) -> None:
    """A vault that sends the token elsewhere is stopped, in the program as in the library."""
    with azure_peer(tmp_path) as peer:
        peer.script = lambda _: peer.challenge(
            resource="https://evil.test", scope="https://evil.test/.default"
        )
        hosts = tmp_path / "hosts"
        hosts.write_text("127.0.0.1 localhost peer.vault.test login.test evil.test\n")
        cloud = {
            "activeDirectoryEndpoint": peer.cloud().authority,
            "keyVaultDNSSuffix": peer.cloud().vault_suffix,
        }
        (tmp_path / "cloud.json").write_text(json.dumps(cloud))
        with (
            provider_program(tmp_path, hosts, tmp_path / "ca.pem", tmp_path) as program,
            grpc.insecure_channel(f"unix:{tmp_path}/azure.sock") as channel,
        ):
            driver = Driver(pb_grpc.CSIDriverProviderStub(channel), str(tmp_path / "cloud.json"))
            refusal = driver.refused(DB, keyvaultName="peer")
            log = program.log
    assert refusal.code == grpc.StatusCode.UNAUTHENTICATED
    assert "resource that is not the vault's own domain" in refusal.details
    assert {request.host for request in peer.received} == {"peer.vault.test"}
    assert not any(request.authorization or request.form for request in peer.received)
    assert "canary" not in log + refusal.details


def test_echoed_credentials_are_not_logged(tmp_path: Path) -> None:
    """Even an Entra ID that answers with what it was sent gets nothing into log or error."""
    with azure_peer(tmp_path) as peer:
        peer.script = lambda request: (
            Answer(200, f"not json {request.form['client_secret']}") if request.form else None
        )
        hosts = tmp_path / "hosts"
        hosts.write_text("127.0.0.1 localhost peer.vault.test login.test\n")
        cloud = {
            "activeDirectoryEndpoint": peer.cloud().authority,
            "keyVaultDNSSuffix": peer.cloud().vault_suffix,
        }
        (tmp_path / "cloud.json").write_text(json.dumps(cloud))
        with (
            provider_program(tmp_path, hosts, tmp_path / "ca.pem", tmp_path) as program,
            grpc.insecure_channel(f"unix:{tmp_path}/azure.sock") as channel,
        ):
            driver = Driver(pb_grpc.CSIDriverProviderStub(channel), str(tmp_path / "cloud.json"))
            refusal = driver.refused(DB, keyvaultName="peer")
            log = program.log
    assert any(request.form for request in peer.received)
    assert "canary" not in log + refusal.details

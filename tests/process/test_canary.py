"""No secret leaks: not into logs, errors, arguments, environment, files or core dumps.

The four programs run as on a node, as talkative as they can be. Every secret is a canary, and
after each scenario everything that left the programs is searched for every form of every canary.
"""

from __future__ import annotations

import os
import signal
import stat
from typing import TYPE_CHECKING, Final

import attrs
import grpc
import pytest

from harness.node import open_channel
from harness.secrecy import TOKENS_KEY, objects, staged
from harness.waiting import eventually
from harness.wholenode import CLIENT, PRINCIPAL, VAULT
from provider._pb import v1alpha1_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.kubelet import PodVolume
    from harness.secrecy import Stage
    from provider.emulator import EmulatorClient

WAIT_S: Final = 20.0
Code = grpc.StatusCode
# How the interpreter's fault handler begins.
FATAL: Final = {
    signal.SIGSEGV: "Fatal Python error: Segmentation fault",
    signal.SIGABRT: "Fatal Python error: Aborted",
}


@pytest.fixture(scope="module", params=["text", "json"])
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Run a node for the tests of this module, with either form of logs."""
    with staged(tmp_path_factory.mktemp("akvfs"), as_json=request.param == "json") as stage:
        yield stage
    stage.check()  # the end of the programs told nothing either


@pytest.fixture
def published(stage: Stage) -> Iterator[PodVolume]:
    """Publish a volume whose content is good."""
    volume = stage.volume()
    stage.publish(volume)
    yield volume
    stage.node.unpublish(volume)


def test_served_secrets_are_seen_by_readers_only(stage: Stage) -> None:
    """Publish, read, rotate twice, unpublish: the pod reads every secret, nobody else sees one."""
    volume = stage.volume()
    stage.publish(volume)
    try:
        for path, content in stage.canaries.files().items():
            assert (volume.target / path).read_bytes() == content
        stage.look_around()
        for value in stage.canaries.values[1:]:
            stage.node.emulator.set_secret(VAULT, "password", value.text)
            password = volume.target / "password"
            eventually(lambda: password.read_bytes() == value.text.encode(), "rotation")  # noqa: B023 - called at once
            stage.look_around()
        stage.publish(volume)  # kubelet's republish
    finally:
        stage.node.unpublish(volume)
        stage.node.emulator.set_secret(VAULT, "password", stage.canaries.values[0].text)
    stage.check()


@attrs.frozen
class Trouble:
    """Something that the vault does, and how it is undone."""

    begin: Callable[[EmulatorClient], None]
    end: Callable[[EmulatorClient], None]
    code: grpc.StatusCode


TROUBLES: Final = {
    "forbidden": Trouble(
        lambda vault: vault.revoke(PRINCIPAL, VAULT),
        lambda vault: vault.grant(PRINCIPAL, VAULT, ["get"]),
        Code.PERMISSION_DENIED,
    ),
    "disabled": Trouble(
        lambda vault: vault.disable(VAULT, "password"),
        lambda vault: vault.enable(VAULT, "password"),
        Code.PERMISSION_DENIED,
    ),
    "deleted": Trouble(
        lambda vault: vault.delete(VAULT, "password"),
        lambda vault: vault.recover(VAULT, "password"),
        Code.NOT_FOUND,
    ),
    "throttled": Trouble(
        lambda vault: vault.fault("throttle", count=None, retry_after=300),
        lambda vault: vault.clear_faults(),
        Code.RESOURCE_EXHAUSTED,
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_trouble_with_the_vault_tells_no_secret(
    stage: Stage, published: PodVolume, trouble: Trouble
) -> None:
    """A refused publish and a failing refresh give their reason, and no canary."""
    failures = stage.node.programs["node server"].log.count("refresh failed")
    trouble.begin(stage.node.emulator)
    try:
        volume = stage.volume()
        assert stage.refused(lambda: stage.publish(volume)) is trouble.code
        stage.wait_for_log("node server", "refresh failed", failures + 1)
        stage.look_around()
        assert (published.target / "password").read_bytes() == stage.canaries.files()["password"]
    finally:
        trouble.end(stage.node.emulator)
    volume.remove()
    stage.check()


@pytest.mark.parametrize("operation", ["secret-get", "token"])
def test_half_an_answer_is_not_quoted(stage: Stage, operation: str) -> None:
    """An answer that breaks off in the middle of a secret or token is asked for again, unseen."""
    attempts = stage.node.programs["provider"].log.count("trying again")
    stage.node.emulator.fault("truncate", operation=operation)
    volume = stage.volume()
    stage.publish(volume)
    stage.wait_for_log("provider", "trying again", attempts + 1)
    stage.node.unpublish(volume)
    stage.check()


def test_wrong_client_secret_is_not_quoted(stage: Stage, published: PodVolume) -> None:
    """Neither a publish nor a refresh that Entra ID refuses tells with which secret it came."""
    failures = stage.node.programs["node server"].log.count("refresh failed")
    volume, wrong = stage.volume(), stage.canaries.wrong_secret
    assert stage.refused(lambda: stage.publish(volume, secret=wrong)) is Code.UNAUTHENTICATED
    stage.publish(published, secret=wrong)  # kubelet's republish never fails
    stage.wait_for_log("node server", "refresh failed", failures + 1)
    stage.look_around()
    volume.remove()
    stage.check()


UNDECODABLE: Final = {"objectName": "undecodable"}
LARGE: Final = {"objectName": "large"}


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        pytest.param([{"objectName": "missing"}], Code.NOT_FOUND, id="missing"),
        pytest.param(
            [{**UNDECODABLE, "objectEncoding": "base64"}], Code.INVALID_ARGUMENT, id="not-base64"
        ),
        pytest.param(
            [{**UNDECODABLE, "objectEncoding": "hex"}], Code.INVALID_ARGUMENT, id="not-hex"
        ),
        pytest.param(
            [{**LARGE, "objectAlias": name} for name in ("a", "b", "c")],
            Code.RESOURCE_EXHAUSTED,
            id="reply-over-the-limit",
        ),
        pytest.param(
            [LARGE, {"objectName": "key", "objectAlias": "large/key"}],
            Code.INVALID_ARGUMENT,
            id="file-where-a-directory-is-needed",
        ),
    ],
)
def test_unusable_content_is_not_quoted(
    stage: Stage, wanted: list[dict[str, str]], code: grpc.StatusCode
) -> None:
    """A secret that cannot be shown as the class asks is refused without a byte of it."""
    stage.write_class("unusable", objects(*wanted))
    volume = stage.volume()
    assert stage.refused(lambda: stage.publish(volume, "unusable")) is code
    volume.remove()
    stage.check()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{}", id="not-a-mapping"),
        pytest.param("array: {}", id="not-a-list"),
        pytest.param("array:\n- |\n  objectName: password\n  objectType: [{}", id="open-bracket"),
        pytest.param('array:\n- |\n  objectName: "{}', id="open-quote"),
        pytest.param("array:\n- |\n  {}\n", id="object-not-a-mapping"),
        pytest.param("array:\n- |\n  objectVersionHistory: {}\n", id="not-a-number"),
        pytest.param("array:\n\t- {}", id="tab"),
    ],
)
def test_broken_yaml_shows_no_whole_value(stage: Stage, text: str) -> None:
    """Errors about the YAML of `objects` name line and kind, and at most the begin of a value."""
    stage.write_class("broken", text.format(stage.canaries.misplaced.text))
    volume = stage.volume()
    assert stage.refused(lambda: stage.publish(volume, "broken")) is Code.INVALID_ARGUMENT
    volume.remove()
    stage.check()


def test_refused_identity_does_not_show_tokens(stage: Stage) -> None:
    """A class that asks for workload identity is refused; the pod's tokens went that way too."""
    stage.write_class("identity", objects({"objectName": "password"}), clientID=CLIENT)
    volume = stage.volume()
    assert stage.refused(lambda: stage.publish(volume, "identity")) is Code.INVALID_ARGUMENT
    volume.remove()
    stage.check()


@pytest.mark.parametrize(
    ("attributes", "secrets"),
    [
        pytest.param(f'{{"{TOKENS_KEY}": "TOKEN', "{}", id="open-token"),
        pytest.param(f'{{"{TOKENS_KEY}": {{"a": "TOKEN"}}}}', "{}", id="token-as-object"),
        pytest.param("{}", '{"clientsecret": "SECRET', id="open-secret"),
        pytest.param("{}", '{"clientsecret": SECRET}', id="secret-without-quotes"),
        pytest.param("{}", '{"clientsecret": ["SECRET"]}', id="secret-as-list"),
        pytest.param("{}", '"SECRET"', id="secret-as-document"),
        pytest.param("{}", "SECRET", id="secret-as-text"),
    ],
)
def test_malformed_request_is_not_quoted(stage: Stage, attributes: str, secrets: str) -> None:
    """What a driver sends that is no JSON of the protocol is refused without a quotation."""
    request = v1alpha1_pb2.MountRequest(
        attributes=attributes.replace("TOKEN", stage.canaries.token.text),
        secrets=secrets.replace("SECRET", stage.canaries.wrong_secret.text),
        permission="420",
    )
    call = stage.node.provider.Mount
    assert stage.refused(lambda: call(request, timeout=WAIT_S)) is Code.INVALID_ARGUMENT
    stage.check()


@pytest.mark.parametrize(
    ("socket", "method", "tags"),
    [
        # A map of strings is a list of entries; the value has the second tag.
        pytest.param("csi/csi.sock", "/csi.v1.Node/NodePublishVolume", b"\x12\x3a", id="node"),
        pytest.param(
            "providers/azure.sock", "/v1alpha1.CSIDriverProvider/Mount", b"\x12", id="provider"
        ),
    ],
)
def test_undecodable_request_is_not_quoted(
    stage: Stage, socket: str, method: str, tags: bytes
) -> None:
    """A message that is no protobuf, since its secret is not UTF-8, is refused unseen."""
    message = stage.canaries.wrong_secret.text.encode() + b"\xff\xfe"
    for tag in tags:
        message = bytes([tag, len(message)]) + message
    with open_channel(stage.node.directory / socket) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        assert stage.refused(lambda: call(message, timeout=WAIT_S)) is Code.INTERNAL
    stage.check()


@pytest.fixture
def fatal(stage: Stage) -> signal.Signals:
    """Provide a signal of a crash: another one with each form of logs."""
    return signal.SIGABRT if stage.as_json else signal.SIGSEGV


@pytest.mark.parametrize("crashing", ["provider", "node server"])
def test_crash_with_secrets_in_hand_leaves_none(
    stage: Stage, published: PodVolume, fatal: signal.Signals, crashing: str
) -> None:
    """A program that dies while it reads a secret says where it stood, and writes no core."""
    emulator, program = stage.node.emulator, stage.node.programs[crashing]
    signed_in = max((entry.number for entry in emulator.request_log("token")), default=0)
    emulator.fault("slow", count=None, seconds=WAIT_S)
    volume = stage.volume()
    call = stage.node.calls.NodePublishVolume.future(stage.request(volume), timeout=WAIT_S)
    eventually(lambda: bool(emulator.request_log("token", after=signed_in)), "a sign-in")
    dumped = program.crash(fatal)
    emulator.clear_faults()
    assert stage.refused(call.result) is Code.UNAVAILABLE
    stage.node.restart(crashing)
    assert not dumped
    assert FATAL[fatal] in program.log
    stage.look_around()
    assert (published.target / "password").read_bytes() == stage.canaries.files()["password"]
    stage.node.unpublish(volume)
    stage.check()


def test_crash_of_the_keeper_leaves_no_secret(
    stage: Stage, published: PodVolume, fatal: signal.Signals
) -> None:
    """The keeper, which passes secrets on unread, leaves none; the volume comes back."""
    keeper = stage.node.programs["keeper"]
    dumped = keeper.crash(fatal)
    stage.node.restart("keeper")
    assert not dumped
    assert FATAL[fatal] in keeper.log
    eventually(lambda: stage.serves(published), "the volume is back")
    stage.look_around()
    stage.check()


def test_crash_of_a_worker_leaves_no_secret(
    stage: Stage, published: PodVolume, fatal: signal.Signals
) -> None:
    """A worker, which has the secrets mapped, leaves none; a read goes on with its successor."""
    [before] = stage.node.volumes()
    assert before.worker_pid is not None
    os.kill(before.worker_pid, fatal)
    assert (published.target / "password").read_bytes() == stage.canaries.files()["password"]
    assert [each.worker_pid for each in stage.node.volumes()] != [before.worker_pid]
    assert FATAL[fatal] in stage.node.programs["keeper"].log
    stage.look_around()
    stage.check()


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        pytest.param("keeper", 0o700, id="keeper-directory"),
        pytest.param("keeper/keeper.sock", 0o600, id="keeper"),
        pytest.param("csi/csi.sock", 0o600, id="csi"),
        pytest.param("csi/registration.sock", 0o600, id="registration"),
        pytest.param("providers/azure.sock", 0o700, id="provider"),
        pytest.param("emulator/admin-token", 0o600, id="emulator-token"),
    ],
)
def test_only_root_may_knock(stage: Stage, path: str, mode: int) -> None:
    """Sockets and what opens doors belong to root alone."""
    found = (stage.node.directory / path).lstat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert found.st_uid == 0

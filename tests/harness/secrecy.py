"""A node whose every secret is a canary, and the collection of all that gets out of it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import grpc
import pytest

from harness.canaries import Canary, Finding, Searcher
from harness.node import CALL_TIMEOUT_S, publish_request
from harness.wholenode import CLIENT, VAULT, WholeNode, whole_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from csi._pb import csi_pb2
    from harness.kubelet import PodVolume
    from provider.emulator import EmulatorClient

TOKENS_KEY: Final = "csi.storage.k8s.io/serviceAccount.tokens"
PRIVATE_KEY: Final = "-----BEGIN PRIVATE KEY-----\n{}\n{}\n-----END PRIVATE KEY-----\n"
HOSTILE: Final = "{}\"\\\\\n\t[]()^$.*+?|<>&'%s %(x)s ${x} #é\u2028\U0001f511\\u0041\\d{}"


@attrs.frozen(kw_only=True)
class Canaries:
    """Everything that must stay unseen."""

    values: tuple[Canary, ...] = attrs.field(
        factory=lambda: tuple(Canary.of(f"value {number}") for number in range(3))
    )
    lines: Canary = attrs.field(factory=lambda: Canary.of("several lines", PRIVATE_KEY))
    hostile: Canary = attrs.field(factory=lambda: Canary.of("special characters", HOSTILE))
    binary: Canary = attrs.field(factory=lambda: Canary.binary("bytes"))
    undecodable: Canary = attrs.field(factory=lambda: Canary.of("neither base64 nor hex", "{}!{}"))
    large: Canary = attrs.field(factory=lambda: Canary.of("large value"))
    client_secret: Canary = attrs.field(
        factory=lambda: Canary.of("client secret", '{}~/+=&%41"\\é{}')
    )
    wrong_secret: Canary = attrs.field(factory=lambda: Canary.of("wrong client secret", "{}/+ {}"))
    token: Canary = attrs.field(factory=lambda: Canary.of("service account token"))
    web_token: Canary = attrs.field(
        factory=lambda: Canary.of("JSON web token", "eyJhbGciOiJub25lIn0.{}.{}")
    )
    misplaced: Canary = attrs.field(factory=lambda: Canary.of("value in a broken class"))

    def all(self) -> tuple[Canary, ...]:
        """Return every canary."""
        single = [each for each in attrs.astuple(self, recurse=False) if isinstance(each, Canary)]
        return (*self.values, *single)

    def files(self) -> dict[str, bytes]:
        """Return what the files of the class `good` hold at first."""
        return {
            "password": self.values[0].text.encode(),
            "tls/key.pem": self.lines.text.encode(),
            "hostile": self.hostile.text.encode(),
            "bytes": self.binary.decoded,
        }

    def tokens(self) -> str:
        """Return what kubelet sends as the pod's tokens."""
        audiences = {"api://AzureADTokenExchange": self.token, "other": self.web_token}
        return json.dumps(
            {
                audience: {"token": each.text, "expirationTimestamp": "2026-01-02T03:04:05Z"}
                for audience, each in audiences.items()
            }
        )

    def fill(self, emulator: EmulatorClient) -> None:
        """Put the first values into the vault, each secret enabled."""
        for name, value in {
            "password": self.values[0].text,
            "key": self.lines.text,
            "hostile": self.hostile.text,
            "bytes": self.binary.text,
            "undecodable": self.undecodable.text,
            "large": self.large.text * 1000,
        }.items():
            emulator.set_secret(VAULT, name, value)


@attrs.frozen(kw_only=True)
class Stage:
    """The node, kubelet's part, and what was seen of canaries."""

    node: WholeNode
    as_json: bool
    canaries: Canaries
    searcher: Searcher
    found: list[Finding] = attrs.field(factory=list)
    planted: list[Path] = attrs.field(factory=list)

    def write_class(self, name: str, objects: str, **parameters: str) -> None:
        """Put a class in place, which may hold canaries."""
        self.planted.append(self.node.write_class(name, objects, **parameters))

    def volume(self) -> PodVolume:
        """Return a new volume, prepared by kubelet."""
        volume = self.node.kubelet.volume()
        volume.prepare()
        return volume

    def publish(
        self,
        volume: PodVolume,
        class_name: str = "good",
        *,
        secret: Canary | None = None,
    ) -> None:
        """Publish a volume, see `request`.

        Raises:
            grpc.RpcError: As the driver answers.
        """
        request = self.request(volume, class_name, secret=secret)
        self.node.calls.NodePublishVolume(request, timeout=CALL_TIMEOUT_S)

    def request(
        self, volume: PodVolume, class_name: str = "good", *, secret: Canary | None = None
    ) -> csi_pb2.NodePublishVolumeRequest:
        """Return a publish with all that a pod can bring; `secret` replaces its client secret."""
        context = volume.context(class_name, **{TOKENS_KEY: self.canaries.tokens()})
        credentials = {
            "clientid": CLIENT,
            "clientsecret": (secret or self.canaries.client_secret).text,
            TOKENS_KEY: self.canaries.tokens(),
        }
        return publish_request(volume, volume_context=context, secrets=credentials)

    def serves(self, volume: PodVolume) -> bool:
        """Return whether a volume of the class `good` can be read."""
        files = self.canaries.files()
        try:
            return all((volume.target / path).read_bytes() == files[path] for path in files)
        except OSError:
            return False

    def refused(self, call: Callable[[], object]) -> grpc.StatusCode:
        """Return the code with which a call is refused, after a look at all that came with it."""
        with pytest.raises(grpc.RpcError) as caught:
            call()
        error: Any = caught.value
        told = [error.details(), error.debug_error_string(), str(error), repr(error)]
        told += [repr(error.initial_metadata()), repr(error.trailing_metadata())]
        self.hear("status of a call", "\n".join(map(str, told)))
        code: grpc.StatusCode = error.code()
        return code

    def hear(self, where: str, told: bytes | str) -> None:
        """Search what a program said."""
        data = told if isinstance(told, bytes) else told.encode()
        self.found.extend(self.searcher.in_bytes(where, data))

    def look_around(self) -> None:
        """Search what the system tells of our processes, and what the keeper holds as records."""
        programs = {program.pid for program in self.node.programs.values()}
        for pid in self.node.processes():
            try:
                self.found.extend(self.searcher.in_process(pid))
            except OSError:
                assert pid not in programs
        for volume in self.node.volumes():
            assert volume.record
            self.hear("volume record", volume.record)
            self.hear("volume", repr(volume))

    def check(self) -> None:
        """Search all files, and fail if a canary was seen there or anywhere before."""
        cores = [path for path in self.node.scratch.iterdir() if path.name.startswith("core")]
        assert not cores, f"core files: {cores}"  # too large to be searched in time
        planted = (*self.node.planted, *self.planted)
        self.found.extend(self.searcher.in_tree(self.node.directory, planted=planted))
        assert not self.found, "\n".join(map(str, self.found))

    def wait_for_log(self, program: str, text: str, times: int = 1) -> None:
        """Wait until a program has logged something as often as that."""
        log = self.node.programs[program]
        log.wait_until(lambda: log.log.count(text) >= times, f"it logs {text!r}")


def objects(*wanted: Mapping[str, str]) -> str:
    """Return the text of the parameter `objects`."""
    return json.dumps({"array": [json.dumps({"objectType": "secret", **each}) for each in wanted]})


GOOD: Final = objects(
    {"objectName": "password"},
    {"objectName": "key", "objectAlias": "tls/key.pem", "filePermission": "0600"},
    {"objectName": "hostile"},
    {"objectName": "bytes", "objectEncoding": "base64"},
)


@contextmanager
def staged(directory: Path, *, as_json: bool = False, node_module: str = "csi") -> Iterator[Stage]:
    """Run a node with a class `good` for the secrets of the vault; see `whole_node`."""
    canaries = Canaries()
    with whole_node(
        directory,
        client_secret=canaries.client_secret.text,
        as_json=as_json,
        node_module=node_module,
    ) as node:
        stage = Stage(
            node=node, as_json=as_json, canaries=canaries, searcher=Searcher(canaries.all())
        )
        canaries.fill(node.emulator)
        stage.write_class("good", GOOD)
        yield stage

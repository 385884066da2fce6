"""The server's socket: how it appears, who removes it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import grpc
import pytest

from fakes.keyvault import FakeClouds, FakeVaults
from provider._pb import v1alpha1_pb2 as pb
from provider._pb import v1alpha1_pb2_grpc as pb_grpc
from provider.errors import InvalidRequest
from provider.mounts import Mounter
from provider.server import serving, socket_path
from provider.service import ProviderService


def service(version: str = "1") -> ProviderService:
    """Return a service without vaults."""
    return ProviderService(Mounter(clouds=FakeClouds(), vaults=FakeVaults()), version=version)


def version_at(path: Path) -> str:
    """Return what the server behind a socket calls its version."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = pb_grpc.CSIDriverProviderStub(channel)
        return stub.Version(pb.VersionRequest(), timeout=10).runtime_version


def test_a_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    """Whoever connects may read secrets, so nobody else may connect."""
    path = tmp_path / "azure.sock"
    with serving(service(), path):
        mode = path.lstat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_the_umask_is_put_back(tmp_path: Path) -> None:
    """Only the socket is made with the tight mask."""
    mask = os.umask(0o022)
    try:
        with serving(service(), tmp_path / "azure.sock"):
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(mask)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """What a killed predecessor left does not stop the next one."""
    path = tmp_path / "azure.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with serving(service("2"), path):
        assert version_at(path) == "2"


def test_a_successor_keeps_its_socket(tmp_path: Path) -> None:
    """A server that stops does not remove what another one has put in its place."""
    path = tmp_path / "azure.sock"
    first = serving(service("1"), path)
    first.__enter__()
    with serving(service("2"), path):
        first.__exit__(None, None, None)
        assert version_at(path) == "2"
    assert not path.exists()


def test_a_successor_in_between_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes while the old server looks whose socket it is gets its own back."""
    path = tmp_path / "azure.sock"
    first, second = serving(service("1"), path), serving(service("2"), path)
    first.__enter__()
    rename = Path.rename

    def rename_late(self: Path, target: Path) -> Path:
        monkeypatch.undo()
        second.__enter__()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    first.__exit__(None, None, None)
    assert version_at(path) == "2"
    second.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_socket_is_told(tmp_path: Path) -> None:
    """The error names the path and asks for its directory."""
    with (
        pytest.raises(InvalidRequest, match="no socket can be made at "),
        serving(service(), tmp_path / "missing" / "azure.sock"),
    ):
        pass


@pytest.mark.parametrize(
    "endpoint",
    ["", "unix://", "udp:///x", "tcp://127.0.0.1:1", "unix://relative", "unix:///" + "x" * 98],
)
def test_other_endpoints_are_refused(endpoint: str) -> None:
    """Secrets are served on a unix socket with an absolute path that fits."""
    with pytest.raises(InvalidRequest, match=f"invalid endpoint: {endpoint}"):
        socket_path(endpoint)


@pytest.mark.parametrize("endpoint", ["unix:///provider/azure.sock", "UNIX:///provider/azure.sock"])
def test_unix_endpoints_are_accepted(endpoint: str) -> None:
    """The scheme is read in any case; in the reference only lower case would listen."""
    assert str(socket_path(endpoint)) == "/provider/azure.sock"


def test_the_longest_path_can_be_bound(tmp_path: Path) -> None:
    """What passes the check also fits the address of a socket under its hidden name."""
    room = 97 - len(os.fsencode(tmp_path)) - 1
    path = tmp_path / ("s" * room)
    assert socket_path(f"unix://{path}") == path
    with serving(service(), path):
        assert version_at(path) == "1"

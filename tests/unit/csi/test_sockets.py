"""Socket paths that change hands."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from csi.errors import SocketError
from csi.sockets import Claim, hidden_name

if TYPE_CHECKING:
    from pathlib import Path


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def _claim(path: Path) -> tuple[Claim, socket.socket]:
    hidden = hidden_name(path)
    listener = _bind(hidden)
    return Claim.take(hidden, path), listener


def test_claim_replaces_what_is_there_for_root_only(tmp_path: Path) -> None:
    """A stale socket or file is replaced without a moment of absence; only its owner may enter."""
    path = tmp_path / "csi.sock"
    path.write_text("left over")
    claim, listener = _claim(path)
    with listener:
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o600
        claim.release()
    assert list(tmp_path.iterdir()) == []


def test_release_leaves_a_successors_socket(tmp_path: Path) -> None:
    """Whoever was replaced removes nothing on his way out."""
    path = tmp_path / "csi.sock"
    (first, old), (second, new) = _claim(path), _claim(path)
    with old, new:
        assert (first.is_held(), second.is_held()) == (False, True)
        first.release()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        second.release()
    assert list(tmp_path.iterdir()) == []


def test_release_twice_is_fine(tmp_path: Path) -> None:
    """A path that is gone is nobody's."""
    claim, listener = _claim(tmp_path / "csi.sock")
    with listener:
        claim.release()
        claim.release()


class _Intruder(Claim):
    """A claim whose successor comes between its first look and the removal."""

    @override
    def _is_ours(self, path: Path) -> bool:
        ours = super()._is_ours(path)
        if path == self.path:
            path.unlink()
            _bind(path).close()
        return ours


def test_successor_that_comes_meanwhile_keeps_his_path(tmp_path: Path) -> None:
    """A socket put there during the removal is given back."""
    path = tmp_path / "csi.sock"
    claim, listener = _claim(path)
    with listener:
        _Intruder(path=claim.path, identity=claim.identity).release()
    assert list(tmp_path.iterdir()) == [path]
    assert path.lstat().st_ino != claim.identity[1]


@pytest.mark.parametrize("name", ["x" * 120, "missing/csi.sock"])
def test_impossible_paths_are_told(tmp_path: Path, name: str) -> None:
    """A path that is too long, or whose directory is missing, names the remedy."""
    with pytest.raises(SocketError, match=r"at most 107 bytes|create or mount it"):
        hidden_name(tmp_path / name)

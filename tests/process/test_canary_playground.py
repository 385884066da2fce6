"""The playground keeps the secrets that it plays with to itself."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import yaml

from harness.canaries import Canary, Searcher
from harness.playground import Playground

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_playground_shows_no_secret(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is set is in the vault and in the pod's file, and in no other file, log or process."""
    parent = tmp_path_factory.mktemp("akvfs")
    playground = Playground(parent / "dir", parent / "log")
    value, refused = Canary.of("value"), Canary.of("value that the vault refuses")
    config = parent / "dir" / "emulator.yaml"
    with playground.program as program:
        playground.wait_until_up()
        searcher = Searcher((value, refused, client_secret_in(config)))
        playground.set("db-password", value.text)
        playground.wait(lambda: playground.read("db-password") == value.text, "the new value")
        answer = playground.set("db-password", refused.text * 2000)
        assert answer.returncode == 1
        found = list(searcher.in_bytes("answer", (answer.stdout + answer.stderr).encode()))
        index = playground.index()
        for pid in (program.pid, *index["pids"].values(), *index["workers"].values()):
            found.extend(searcher.in_process(pid))
        found.extend(searcher.in_tree(parent, planted=[config]))
    assert not [*found, *searcher.in_tree(parent)]


def client_secret_in(config: Path) -> Canary:
    """Return the client secret that the playground has made; only root may read where it is."""
    mode = os.stat(config).st_mode
    assert stat.S_IMODE(mode) == 0o600
    [principal] = yaml.safe_load(config.read_text(encoding="utf-8"))["principals"].values()
    return Canary.caught("client secret", principal["client_secret"])

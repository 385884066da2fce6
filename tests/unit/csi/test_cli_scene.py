"""What the demo and the playground are made of: files and flags that the programs accept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from csi import config
from csi.classes import ClassDirectory
from csi.cli import scene
from csi.cli.layout import Workspace
from csi.cli.vaultstate import VAULT
from provider.emulator import EmulatorConfig
from provider.objects import parse_objects
from provider.parameters import parse_parameters

if TYPE_CHECKING:
    from pathlib import Path

RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def made(tmp_path: Path) -> scene.Scene:
    """Return a scene whose files are written."""
    workspace = Workspace(root=tmp_path, run=RUN)
    workspace.classes.mkdir()
    found = scene.Scene(workspace=workspace)
    found.write()
    return found


async def test_class_shows_every_secret(made: scene.Scene) -> None:
    """The node server finds the class, and the provider reads its parameters and objects."""
    found = await ClassDirectory(made.workspace.classes).get(scene.NAMESPACE, scene.CLASS)
    parameters = parse_parameters({**found.parameters, **scene.VOLUME.context()})
    assert (found.provider, parameters.vault_name) == ("azure", VAULT)
    assert parameters.warnings == ()
    objects = parse_objects(parameters.objects)
    assert [(each.name, each.file_name) for each in objects] == [
        (secret.name, secret.file) for secret in scene.SECRETS
    ]


def test_emulator_takes_its_configuration(made: scene.Scene) -> None:
    """The vault has the secrets, the pod's principal may read them, the file is for root only."""
    path = made.workspace.emulator_config
    parsed = EmulatorConfig.load(path)
    vault = parsed.vaults[VAULT]
    assert vault.secrets == {secret.name: secret.first for secret in scene.SECRETS}
    [(name, principal)] = parsed.principals.items()
    assert vault.access == {name: ["get"]}
    assert made.credentials == {
        "clientid": principal.client_id,
        "clientsecret": principal.client_secret,
    }
    assert path.stat().st_mode & 0o777 == 0o600


def test_node_server_takes_its_flags(made: scene.Scene) -> None:
    """Rotation is every second, without jitter, from the folder's sockets and classes."""
    _, *flags = made.programs()["node"].arguments
    taken: list[config.Config] = []
    config.command.main(flags, obj=taken.append, standalone_mode=False)
    [found] = taken
    assert found.csi_socket == made.workspace.csi_socket
    assert (found.rotation, found.poll_interval, found.rotation_jitter) == (True, 1.0, 0.0)
    assert found.provider_dirs[0] == made.workspace.providers


def test_credentials_are_new_and_never_shown(tmp_path: Path) -> None:
    """Each run invents its own secret, which no record and no command line shows."""
    workspace = Workspace(root=tmp_path, run=RUN)
    one, other = scene.Scene(workspace=workspace), scene.Scene(workspace=workspace)
    assert one.client_secret != other.client_secret
    programs = one.programs()
    assert one.client_secret not in repr(one) + repr(programs)
    assert not any(secret.first in repr(scene.SECRETS) for secret in scene.SECRETS)


def test_programs_have_the_names_of_the_index(made: scene.Scene) -> None:
    """The index calls them what people call them; ports are part of the emulator's flags."""
    programs = made.programs()
    assert set(programs) == {"keeper", "node", "provider", "emulator"}
    moved = scene.at_port(programs["emulator"], 4711)
    assert moved.arguments[-2:] == ("--port", "4711")


def test_paths_are_those_of_the_files(made: scene.Scene, tmp_path: Path) -> None:
    """Each name has an absolute path below the target, folders included."""
    paths = made.paths(tmp_path / "mount")
    assert paths["db-password"] == str(tmp_path / "mount" / "db-password")
    assert any("/" in secret.file for secret in scene.SECRETS)
    assert yaml.safe_load(made.workspace.emulator_config.read_text())["tenant"]

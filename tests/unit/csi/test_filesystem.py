"""Which file system the node server asks for: the class, the flag, never the pod."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from csi.record import decode_options
from fakes.kubelet import publish_request
from fakes.nodeserver import world
from fakes.virtualtime import virtual_time
from fusefs.published import DEFAULTS, VolumeOptions

if TYPE_CHECKING:
    from fakes.nodeserver import World

TMPFS = VolumeOptions(filesystem="tmpfs")


def put(here: World, filesystem: str | None) -> None:
    """Let the class ask for a file system."""
    ours = {} if filesystem is None else {"akvfs/filesystem": filesystem}
    here.classes.put(parameters={"keyvaultName": "kv", **ours})


@pytest.mark.parametrize(
    ("flag", "asked", "wanted"),
    [
        ("auto", None, "auto"),
        ("auto", "fuse", "fuse"),
        ("auto", "tmpfs", "tmpfs"),
        ("tmpfs", None, "tmpfs"),
        ("tmpfs", "auto", "auto"),
        ("tmpfs", "fuse", "fuse"),
        ("fuse", None, "fuse"),
        ("fuse", "auto", "fuse"),
        ("fuse", "fuse", "fuse"),
        ("fuse", "tmpfs", "fuse"),
    ],
)
@virtual_time
async def test_class_decides_unless_the_flag_is_fuse(
    flag: str, asked: str | None, wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The flag is for classes that do not say; with fuse nobody may say otherwise."""
    async with world(filesystem=flag) as here:
        put(here, asked)
        await here.core.node.publish(publish_request())
        assert here.keeper.kept["csi-web"].options.filesystem == wanted
    overruled = "which --filesystem=fuse does not allow" in caplog.text
    assert overruled is ((flag, asked) == ("fuse", "tmpfs"))


@virtual_time
async def test_pod_does_not_choose_its_file_system() -> None:
    """A pod author could choose to be unaudited: what the pod says is not read."""
    async with world() as here:
        request = publish_request()
        attributes = {**request.spec.attributes, "akvfs/filesystem": "tmpfs"}
        spec = attrs.evolve(request.spec, attributes=attributes)
        await here.core.node.publish(attrs.evolve(request, spec=spec))
        assert here.keeper.kept["csi-web"].options == DEFAULTS


@virtual_time
async def test_containers_to_restart_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """Who still sees a mount that was repaired can be helped by a restart only."""
    async with world() as here:
        here.keeper.restart = ("0123", "4567")
        await here.core.node.publish(publish_request())
    [record] = [one for one in caplog.records if "restart them" in one.message]
    assert vars(record)["containers"] == "0123, 4567"
    assert vars(record)["pod"] == "shop/web"


@virtual_time
async def test_fallback_is_told_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    """Where FUSE cannot be had the operator reads why, with the volume's pod and class."""
    caplog.set_level(logging.WARNING)
    async with world() as here:
        here.keeper.no_fuse = "there is no /dev/fuse"
        await here.core.node.publish(publish_request())
    [record] = [one for one in caplog.records if "is a tmpfs" in one.message]
    assert vars(record)["error"] == "there is no /dev/fuse"
    assert vars(record)["pod"] == "shop/web"


@pytest.mark.parametrize("filesystem", ["auto", "fuse", "tmpfs"])
@virtual_time
async def test_lost_volume_comes_back_as_it_was(filesystem: str) -> None:
    """After the loss of a keeper a volume is asked for as before, whatever the class says now."""
    async with world() as here:
        put(here, filesystem)
        await here.core.node.publish(publish_request())
        put(here, None)
        here.providers.files = {"password": b"second"}
        await trio.sleep(121)
        record = here.keeper.kept["csi-web"].record
        here.keeper.kill()
        await trio.sleep(30)
        assert here.keeper.shown("csi-web") == {"password": b"second"}
        assert here.keeper.kept["csi-web"].options.filesystem == filesystem
        assert decode_options(record).filesystem == filesystem


def test_unreadable_record_means_the_default() -> None:
    """A volume whose record is none of ours comes back as a new one would."""
    assert decode_options(b"other") == DEFAULTS

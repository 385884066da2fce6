"""What survives the death of the node server or of the keeper, in virtual time."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import pytest
import trio

from csi.errors import ProviderFailed
from csi.records import Credentials
from csi.volumes import State
from fakes.keeper import FakeKeeper
from fakes.kubelet import publish_request, unpublish_request, volume_of
from fakes.nodeserver import world
from fakes.sources import FakeProviders
from fakes.virtualtime import virtual_time
from fusefs.errors import VolumeFailed

if TYPE_CHECKING:
    from csi.records import MountCall
    from fakes.keeper import Moment


async def _fail(_: MountCall) -> None:
    code = "UNAVAILABLE"
    raise ProviderFailed(code, "the vault is out")


@virtual_time
async def test_new_node_server_resumes_from_the_keeper() -> None:
    """A new node server knows the volumes at once, and refreshes when a republish comes."""
    keeper, providers = FakeKeeper(), FakeProviders()
    async with world(keeper) as before:
        await before.core.node.publish(publish_request())
    async with world(keeper, providers) as here:
        await trio.sleep(1000)
        volume = here.core.registry.shown(volume_of())
        assert volume is not None
        assert (volume.spec, volume.credentials) == (publish_request().spec, None)
        assert providers.calls == []  # without credentials there is nobody to be
        providers.rotate(password=b"second")
        await here.core.node.publish(publish_request())
        assert keeper.shown("csi-web") == {"password": b"second"}
        assert [each.version for each in providers.calls[0][1].current] == ["v1"]
        assert keeper.calls == ["publish", "rotate"]
        here.check()


@virtual_time
async def test_resumed_volume_joins_the_tick_of_its_class() -> None:
    """After the first refresh a resumed volume is refreshed like any other."""
    keeper = FakeKeeper()
    async with world(keeper) as before:
        await before.core.node.publish(publish_request())
    async with world(keeper) as here:
        await trio.sleep(10)
        start = trio.current_time()
        await here.core.node.publish(publish_request())
        await trio.sleep(250)
        assert [moment - start for moment in here.providers.times] == [0.0, 120.0, 240.0]
        here.check()


@virtual_time
async def test_resumed_volume_that_fails_waits_one_interval() -> None:
    """The first failure after a resume is answered like any first failure."""
    keeper = FakeKeeper()
    async with world(keeper) as before:
        await before.core.node.publish(publish_request())
    async with world(keeper) as here:
        start = trio.current_time()
        here.providers.hook = _fail
        await here.core.node.publish(publish_request())
        await trio.sleep(130)
        assert [moment - start for moment in here.providers.times] == [0.0, 120.0]
        assert keeper.shown("csi-web") == {"password": b"first"}


@virtual_time
async def test_resumed_volume_can_be_unpublished_first() -> None:
    """A new node server takes away what the one before published."""
    keeper = FakeKeeper()
    async with world(keeper) as before:
        await before.core.node.publish(publish_request())
    async with world(keeper) as here:
        await here.core.node.unpublish(unpublish_request())
        assert keeper.kept == {}


@virtual_time
async def test_unreadable_record_is_replaced_by_republish() -> None:
    """A record of an unknown form leaves the volume as it is until the republish describes it."""
    keeper = FakeKeeper()
    async with world(keeper) as before:
        await before.core.node.publish(publish_request())
    good, keeper.kept["csi-web"].record = keeper.kept["csi-web"].record, b"\xff"
    async with world(keeper) as here:
        await trio.sleep(1)
        await here.core.node.publish(publish_request())
        assert keeper.kept["csi-web"].record == good
        assert keeper.calls == ["publish", "update_record"]


@virtual_time
async def test_record_holds_no_credentials() -> None:
    """Secrets and tokens do not reach the keeper."""
    credentials = Credentials(secrets={"clientsecret": "canary-1"}, tokens="canary-2")
    async with world() as here:
        await here.core.node.publish(publish_request(credentials=credentials))
        assert b"canary" not in here.keeper.kept["csi-web"].record


@virtual_time
async def test_killed_keeper_gets_its_volumes_back() -> None:
    """The mounts died with the keeper: they are published again from memory, at once."""
    async with world() as here:
        for pod in ("a", "b"):
            await here.core.node.publish(publish_request(pod))
        here.keeper.kill()
        await trio.sleep(2)
        assert here.keeper.shown("csi-a") == here.keeper.shown("csi-b") == {"password": b"first"}
        assert len(here.providers.calls) == 2
        here.providers.rotate(password=b"second")
        await trio.sleep(120)
        assert here.keeper.shown("csi-a") == {"password": b"second"}
        here.check()


@virtual_time
async def test_restore_is_tried_again_until_it_works() -> None:
    """A refusal of the new keeper is not the end of the volume."""
    async with world() as here:
        await here.core.node.publish(publish_request())

        async def refuse(_: str, moment: Moment) -> None:
            if moment == "before":
                message = "no worker"
                raise VolumeFailed(message)

        here.keeper.hook = refuse
        here.keeper.kill()
        await trio.sleep(5)
        volume = here.core.registry.shown(volume_of())
        assert volume is not None
        assert volume.state is State.LOST
        here.keeper.hook = None
        await trio.sleep(10)
        assert here.keeper.shown("csi-web") == {"password": b"first"}
        here.check()


@virtual_time
async def test_volume_unpublished_meanwhile_stays_away() -> None:
    """What was unpublished while its keeper was dead does not come back."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        here.keeper.listening = False
        here.keeper.kill()
        await trio.sleep(0.1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.core.node.unpublish, unpublish_request())
            await trio.sleep(1)
            here.keeper.listening = True
        await trio.sleep(10)
        assert here.keeper.kept == {}
        assert list(here.core.registry) == []


@virtual_time
async def test_lost_answer_of_an_unpublish_converges() -> None:
    """An unpublish whose answer was lost has happened, and the volume is forgotten."""
    async with world() as here:
        await here.core.node.publish(publish_request())

        async def lose(_: str, moment: Moment) -> None:
            if moment == "before":
                here.keeper.hook = None
                here.keeper.disconnect()

        here.keeper.hook = lose
        with pytest.raises(Exception, match="connection to the keeper was lost"):
            await here.core.node.unpublish(unpublish_request())
        await trio.sleep(5)  # the next session takes it away without kubelet
        assert here.keeper.kept == {}
        assert list(here.core.registry) == []


@virtual_time
async def test_vanished_volume_is_published_again() -> None:
    """A keeper that forgot one volume only is found out by the next rotation."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        here.keeper.kept.pop("csi-web").snapshot.close()
        here.providers.rotate(password=b"second")
        await trio.sleep(121)
        assert here.keeper.shown("csi-web") == {"password": b"second"}
        here.check()


@virtual_time
async def test_written_content_is_not_brought_back(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever showed a volume could write to what it shows: it gets what the provider has."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        snapshot = here.keeper.kept["csi-web"].snapshot
        with mmap.mmap(snapshot.fd, snapshot.size) as content:
            content[-1:] = b"!"
        assert here.keeper.shown("csi-web") == {"password": b"firs!"}
        here.keeper.kill()
        await trio.sleep(200)
        assert here.keeper.shown("csi-web") == {"password": b"first"}
        here.check()
    assert "somebody wrote to it" in caplog.text

"""Publish, republish and unpublish above a fake keeper, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from csi.errors import (
    ClassNotFound,
    ContentTooLarge,
    MountFailed,
    ProviderFailed,
    TargetTaken,
    VolumeElsewhere,
)
from csi.records import Credentials, TargetPath, VolumeId
from fakes.kubelet import publish_request, target_of, unpublish_request, volume_of
from fakes.nodeserver import world
from fakes.virtualtime import virtual_time
from fusefs.errors import KeeperUnavailable, Superseded, VolumeFailed
from fusefs.snapshot import MAX_SNAPSHOT_BYTES

if TYPE_CHECKING:
    from csi.records import MountCall
    from fakes.keeper import Moment


async def _fail(_: MountCall) -> None:
    msg = "UNAVAILABLE"
    raise ProviderFailed(msg, "the vault is out")


@virtual_time
async def test_republish_takes_fresh_credentials() -> None:
    """What a republish brings is what the next refresh sends."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        fresh = Credentials(secrets={"clientsecret": "newer"}, tokens='{"aud": {}}')
        await here.core.node.publish(publish_request(credentials=fresh))
        await trio.sleep(121)
        call = here.providers.calls[-1][1]
    assert call.secrets == '{"clientsecret":"newer"}'
    assert '"csi.storage.k8s.io/serviceAccount.tokens":"{\\"aud\\": {}}"' in call.attributes


@pytest.mark.parametrize("trouble", ["class", "provider", "keeper", "superseded"])
@virtual_time
async def test_republish_never_fails(trouble: str) -> None:
    """Class gone, vault out, keeper gone, superseded: OK, and the content stays."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        if trouble == "class":
            here.classes.classes.clear()
        elif trouble == "provider":
            here.providers.hook = _fail
        elif trouble == "keeper":
            here.keeper.listening = False
            here.keeper.disconnect()
        else:
            here.keeper.sessions.append(here.keeper.sessions[0])
        for _ in range(5):
            await here.core.node.publish(
                publish_request(credentials=Credentials(tokens=str(trio.current_time())))
            )
            await trio.sleep(60)
        assert here.keeper.shown("csi-web") == {"password": b"first"}
        assert here.keeper.calls.count("publish") == 1
        here.check()


@virtual_time
async def test_republish_refreshes_at_once_after_a_failure() -> None:
    """Credentials that changed may be the cure: the back-off is cut short."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        here.providers.hook = _fail
        await trio.sleep(2000)
        here.providers.hook = None
        here.providers.rotate(password=b"second")
        await here.core.node.publish(publish_request(credentials=Credentials(tokens="fresh")))
        assert here.keeper.shown("csi-web") == {"password": b"second"}


@virtual_time
async def test_republish_does_not_wait_for_a_running_refresh() -> None:
    """Kubelet gets its answer while a refresh waits for the vault."""
    async with world() as here:
        await here.core.node.publish(publish_request())

        async def wait(_: MountCall) -> None:
            await trio.sleep(50)

        here.providers.hook = wait
        await trio.sleep(121)
        with trio.fail_after(0.1):
            await here.core.node.publish(publish_request(credentials=Credentials(tokens="new")))


@virtual_time
async def test_failed_publish_leaves_nothing_and_repeats() -> None:
    """After a failure nothing is known or kept; the same publish later succeeds."""
    async with world() as here:
        here.providers.hook = _fail
        with pytest.raises(Exception, match="the vault is out"):
            await here.core.node.publish(publish_request())
        assert (here.keeper.calls, list(here.core.registry)) == ([], [])
        here.check()
        here.providers.hook = None
        await here.core.node.publish(publish_request())
        assert here.keeper.shown("csi-web") == {"password": b"first"}


@virtual_time
async def test_unknown_class_asks_nobody() -> None:
    """The class is looked up before the provider."""
    async with world() as here:
        with pytest.raises(ClassNotFound):
            await here.core.node.publish(publish_request(class_name="missing"))
        assert here.providers.calls == []


@virtual_time
async def test_lost_answer_of_a_publish_is_cleaned_up() -> None:
    """A publish whose answer was lost fails as "unknown", and the mount is taken away."""
    async with world() as here:

        async def lose(_: str, moment: Moment) -> None:
            if moment == "after":
                here.keeper.hook = None
                here.keeper.disconnect()

        here.keeper.hook = lose
        with pytest.raises(KeeperUnavailable):
            await here.core.node.publish(publish_request())
        await trio.sleep(5)
        assert here.keeper.kept == {}
        assert list(here.core.registry) == []
        await here.core.node.publish(publish_request())
        assert here.keeper.shown("csi-web") == {"password": b"first"}


@virtual_time
async def test_retry_before_the_cleanup_shows_new_content() -> None:
    """A retry does not trust what an attempt of unknown outcome may have left."""
    async with world() as here:

        async def defect(call: str, moment: Moment) -> None:
            if (call, moment) == ("publish", "after") or call == "unpublish":
                message = "the worker died"
                raise VolumeFailed(message) if call == "unpublish" else ZeroDivisionError

        here.keeper.hook = defect
        with pytest.raises(ZeroDivisionError):
            await here.core.node.publish(publish_request())
        assert here.keeper.shown("csi-web") == {"password": b"first"}  # nobody could remove it
        here.keeper.hook = None
        here.providers.rotate(password=b"second")
        await here.core.node.publish(publish_request())
        assert here.keeper.shown("csi-web") == {"password": b"second"}
        here.check()


@virtual_time
async def test_concurrent_publishes_mount_once() -> None:
    """Kubelet repeats a publish that it gave up on: both are answered, one mounts."""
    async with world() as here:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(here.core.node.publish, publish_request())
        assert here.keeper.calls == ["publish"]


@virtual_time
async def test_publish_at_another_target_is_refused() -> None:
    """One volume has one target; the remedy is named."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        request = publish_request()
        spec = attrs.evolve(request.spec, target=target_of("other"))
        with pytest.raises(VolumeElsewhere, match=r"target_path: unpublish .*uid-web"):
            await here.core.node.publish(attrs.evolve(request, spec=spec))


@virtual_time
async def test_second_volume_at_one_target_is_refused() -> None:
    """Two volumes cannot share a target."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        request = publish_request()
        spec = attrs.evolve(request.spec, volume_id=VolumeId("csi-other"))
        with pytest.raises(TargetTaken, match="unpublish volume csi-web there first"):
            await here.core.node.publish(attrs.evolve(request, spec=spec))
        here.check()


@virtual_time
async def test_publish_without_a_keeper_says_so() -> None:
    """Without a keeper a first publish fails, in time, as something to try again."""
    async with world() as here:
        here.keeper.listening = False
        here.keeper.disconnect()
        with trio.fail_after(30), pytest.raises(KeeperUnavailable, match="keeper's pod"):
            await here.core.node.publish(publish_request())


@virtual_time
async def test_publish_after_a_takeover_is_refused() -> None:
    """A node server that was superseded says so, and kubelet asks the new one."""
    async with world() as here:
        await here.core.node.publish(publish_request("a"))
        async with here.keeper.connect():
            for _ in range(2):
                with pytest.raises(Superseded):
                    await here.core.node.publish(publish_request("b"))
                await trio.sleep(1)


@virtual_time
async def test_unpublish_converges_for_unknown_volumes() -> None:
    """An unpublish of a volume that nobody knows succeeds, again and again."""
    async with world() as here:
        for _ in range(2):
            await here.core.node.unpublish(unpublish_request())


@virtual_time
async def test_unpublish_outside_the_layout_converges() -> None:
    """Nothing of ours can be outside kubelet's layout, so there is nothing to do."""
    async with world() as here:
        request = attrs.evolve(unpublish_request(), target=TargetPath("/elsewhere"))
        await here.core.node.unpublish(request)


@virtual_time
async def test_unpublish_of_another_target_keeps_the_volume() -> None:
    """Only the volume at the target that is named goes from the registry."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        await here.core.node.unpublish(
            attrs.evolve(unpublish_request("other"), volume_id=VolumeId("csi-other"))
        )
        assert here.core.registry.shown(volume_of()) is not None


@virtual_time
async def test_failed_unpublish_is_finished_by_the_next() -> None:
    """A volume that could not be taken away is refreshed no more, and goes with the next call."""
    async with world() as here:
        await here.core.node.publish(publish_request())

        async def refuse(_: str, moment: Moment) -> None:
            if moment == "before":
                message = "busy"
                raise VolumeFailed(message)

        here.keeper.hook = refuse
        with pytest.raises(VolumeFailed):
            await here.core.node.unpublish(unpublish_request())
        await trio.sleep(1000)
        assert len(here.providers.calls) == 1
        here.keeper.hook = None
        await here.core.node.unpublish(unpublish_request())
        assert here.keeper.kept == {}
        assert list(here.core.registry) == []


@virtual_time
async def test_attributes_win_over_parameters_but_not_ours() -> None:
    """A pod's attribute replaces a parameter of the same name, except the akvfs/ options."""
    async with world() as here:
        here.classes.put(parameters={"keyvaultName": "class", "akvfs/rotationPollInterval": "1h"})
        request = publish_request()
        attributes = {
            **request.spec.attributes,
            "keyvaultName": "pod",
            "akvfs/rotationPollInterval": "11s",
        }
        spec = attrs.evolve(request.spec, attributes=attributes)
        await here.core.node.publish(attrs.evolve(request, spec=spec))
        await trio.sleep(3601)
        assert here.providers.times == [0.0, 3600.0]
        assert '"keyvaultName":"pod"' in here.providers.calls[0][1].attributes
        assert "akvfs/" not in here.providers.calls[0][1].attributes


@virtual_time
async def test_content_beyond_a_snapshot_is_refused() -> None:
    """More than a snapshot may hold is told as such, and nothing is left."""
    async with world() as here:
        here.providers.files = {"large": bytes(MAX_SNAPSHOT_BYTES)}
        with pytest.raises(MountFailed, match="show fewer or smaller objects") as caught:
            await here.core.node.publish(publish_request())
        assert isinstance(caught.value.error, ContentTooLarge)
        assert (here.keeper.calls, list(here.core.registry)) == ([], [])

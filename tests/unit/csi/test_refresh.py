"""The refresh loop in virtual time: intervals, groups, back-off, what stays when it fails."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from csi.errors import ProviderFailed
from csi.records import Credentials
from fakes.kubelet import publish_request, unpublish_request
from fakes.nodeserver import world
from fakes.virtualtime import virtual_time

if TYPE_CHECKING:
    from csi.records import MountCall
    from fakes.keeper import Moment

INTERVAL = 120.0


async def _fail(_: MountCall) -> None:
    msg = "UNAVAILABLE"
    raise ProviderFailed(msg, "the vault is out")


@virtual_time
async def test_new_content_is_rotated_in_at_the_interval() -> None:
    """A changed secret is shown one interval later, as the next generation."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        here.providers.rotate(password=b"second")
        await trio.sleep(INTERVAL - 1)
        assert here.keeper.shown("csi-web") == {"password": b"first"}
        await trio.sleep(2)
        assert here.keeper.shown("csi-web") == {"password": b"second"}
        assert here.keeper.kept["csi-web"].snapshot.generation == 2
        here.check()


@virtual_time
async def test_unchanged_content_asks_the_provider_only() -> None:
    """The provider is asked every interval; the keeper hears nothing while nothing changes."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        await trio.sleep(INTERVAL * 4.5)
        assert here.providers.times == [0.0, *(INTERVAL * n for n in range(1, 5))]
        assert here.keeper.calls == ["publish"]


@virtual_time
async def test_shown_versions_go_with_each_refresh() -> None:
    """A refresh tells the provider what is shown; the first publish has nothing to tell."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        await trio.sleep(INTERVAL + 1)
        first, second = (call.current for _, call in here.providers.calls)
    assert first == ()
    assert [(each.id, each.version) for each in second] == [("secret/password", "v1")]


@virtual_time
async def test_new_version_of_same_bytes_updates_generation() -> None:
    """A new version is visible as an attribute, so it makes a generation even with equal bytes."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        here.providers.rotate()
        await trio.sleep(INTERVAL + 1)
        [entry] = here.keeper.kept["csi-web"].snapshot.entries()
        assert (entry.object_id, entry.object_version) == ("secret/password", "v2")


@virtual_time
async def test_no_refresh_when_rotation_is_off() -> None:
    """With rotation off the content of the first publish stays, whatever kubelet sends."""
    async with world(rotation=False) as here:
        await here.core.node.publish(publish_request())
        await trio.sleep(INTERVAL * 10)
        await here.core.node.publish(publish_request(credentials=Credentials(tokens="fresh")))
        await trio.sleep(INTERVAL * 10)
        assert len(here.providers.calls) == 1


@virtual_time
async def test_class_chooses_its_own_interval() -> None:
    """akvfs/rotationPollInterval counts for the volumes of a class."""
    async with world() as here:
        here.classes.put(parameters={"a": "b", "akvfs/rotationPollInterval": "1h"})
        await here.core.node.publish(publish_request())
        await trio.sleep(3600 * 2.5)
        assert here.providers.times == [0.0, 3600.0, 7200.0]


@virtual_time
async def test_class_interval_stops_at_the_floor() -> None:
    """A class does not get below the node's floor."""
    async with world(poll_interval_floor=60.0) as here:
        here.classes.put(parameters={"a": "b", "akvfs/rotationPollInterval": "1s"})
        await here.core.node.publish(publish_request())
        await trio.sleep(130)
        assert here.providers.times == [0.0, 60.0, 120.0]


@virtual_time
async def test_node_interval_below_the_floor_is_meant() -> None:
    """A node that refreshes everything every second lets a class do so too."""
    async with world(poll_interval=1.0, poll_interval_floor=60.0) as here:
        here.classes.put(parameters={"a": "b", "akvfs/rotationPollInterval": "1s"})
        await here.core.node.publish(publish_request())
        await trio.sleep(3.5)
        assert here.providers.times == [0.0, 1.0, 2.0, 3.0]


@virtual_time
async def test_edited_class_takes_effect_at_the_refresh() -> None:
    """Parameters and interval of an edited class count from the next refresh on."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        here.classes.put(parameters={"keyvaultName": "other", "akvfs/rotationPollInterval": "30s"})
        await trio.sleep(INTERVAL + 70)
        assert here.providers.times == [0.0, INTERVAL, INTERVAL + 30, INTERVAL + 60]
        assert '"keyvaultName":"other"' in here.providers.calls[-1][1].attributes
        here.check()


@virtual_time
async def test_volumes_of_one_class_refresh_in_one_tick() -> None:
    """Volumes published at different times share the ticks of their class and identity."""
    async with world() as here:
        for pod in ("a", "b", "c"):
            await here.core.node.publish(publish_request(pod))
            await trio.sleep(7)
        published = len(here.providers.calls)
        await trio.sleep(INTERVAL * 2)
        assert here.providers.times[published:] == [INTERVAL] * 3 + [INTERVAL * 2] * 3


@virtual_time
async def test_other_identity_has_its_own_tick() -> None:
    """A volume with other secrets does not share the tick: its reads cannot be merged."""
    async with world() as here:
        await here.core.node.publish(publish_request("a"))
        await trio.sleep(7)
        other = Credentials(secrets={"clientsecret": "somebody else"})
        await here.core.node.publish(publish_request("b", credentials=other))
        await trio.sleep(INTERVAL + 1)
        assert here.providers.times == [0.0, 7.0, INTERVAL, INTERVAL + 7]


@virtual_time
async def test_failures_back_off_and_keep_the_content() -> None:
    """Delays double up to the limit; what is shown stays, and a success ends it."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        here.providers.hook = _fail
        await trio.sleep(2700)
        assert here.keeper.shown("csi-web") == {"password": b"first"}
        delays = [
            b - a for a, b in zip(here.providers.times, here.providers.times[1:], strict=False)
        ]
        assert delays == [120.0, 120.0, 240.0, 480.0, 600.0, 600.0]
        here.providers.hook = None
        here.providers.rotate(password=b"second")
        await trio.sleep(600)
        assert here.keeper.shown("csi-web") == {"password": b"second"}
        here.check()


@virtual_time
async def test_one_failing_volume_does_not_slow_others() -> None:
    """The members of a group that work stay in its tick."""
    async with world() as here:
        for pod in ("good", "bad"):
            await here.core.node.publish(publish_request(pod))

        async def fail_one(call: MountCall) -> None:
            if "uid-bad" in call.target:
                await _fail(call)

        here.providers.hook = fail_one
        await trio.sleep(INTERVAL * 4 + 1)
        good = [moment for moment, call in here.providers.calls if "uid-good" in call.target]
        assert good == [INTERVAL * n for n in range(5)]


@virtual_time
async def test_jitter_lengthens_and_differs_by_node() -> None:
    """Each interval grows by at most the jitter, by another part on another node."""
    times = []
    for node in ("node-1", "node-2"):
        async with world(node_id=node, rotation_jitter=0.5) as here:
            start = trio.current_time()
            await here.core.node.publish(publish_request())
            await trio.sleep(INTERVAL * 5)
            times.append([moment - start for moment in here.providers.times])
    for moments in times:
        gaps = [b - a for a, b in itertools.pairwise(moments)]
        assert all(INTERVAL <= gap <= INTERVAL * 1.5 for gap in gaps)
    assert times[0] != times[1]


@virtual_time
async def test_defect_in_a_refresh_leaves_the_loop_alive() -> None:
    """An unexpected exception is a failure of that refresh, not the end of all."""
    async with world() as here:
        await here.core.node.publish(publish_request())

        async def defect(_: MountCall) -> None:
            message = "a defect"
            raise ZeroDivisionError(message)

        here.providers.hook = defect
        await trio.sleep(INTERVAL + 1)
        here.providers.hook = None
        here.providers.rotate(password=b"second")
        await trio.sleep(INTERVAL + 1)
        assert here.keeper.shown("csi-web") == {"password": b"second"}


@virtual_time
async def test_unpublish_interrupts_a_refresh() -> None:
    """An unpublish does not wait for a refresh that waits for a vault."""
    async with world() as here:
        await here.core.node.publish(publish_request())

        async def wait(_: MountCall) -> None:
            await trio.sleep_forever()

        here.providers.hook = wait
        await trio.sleep(INTERVAL + 1)
        with trio.fail_after(1):
            await here.core.node.unpublish(unpublish_request())
        await wait_all_tasks_blocked()
        assert here.keeper.kept == {}
        assert list(here.core.registry) == []
        here.check()


@virtual_time
async def test_no_provider_is_asked_without_a_keeper() -> None:
    """While there is no keeper there is nobody to give content to; afterwards it is caught up."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        here.keeper.listening = False
        here.keeper.disconnect()
        await trio.sleep(INTERVAL * 10)
        assert len(here.providers.calls) == 1
        here.keeper.listening = True
        await trio.sleep(5)
        assert len(here.providers.calls) == 2


@virtual_time
async def test_superseded_node_server_stops_refreshing() -> None:
    """After a newer node server has taken over, the loop ends for good."""
    async with world() as here:
        await here.core.node.publish(publish_request())
        async with here.keeper.connect():
            here.providers.rotate(password=b"second")
            await trio.sleep(INTERVAL + 1)  # the rotation is refused, and that tells
            asked = len(here.providers.calls)
            await trio.sleep(INTERVAL * 10)
            assert len(here.providers.calls) == asked
            assert here.keeper.shown("csi-web") == {"password": b"first"}


@virtual_time
async def test_lost_acknowledgement_is_found_at_reconnect() -> None:
    """A rotation whose answer was lost has happened: the next one continues from there."""
    async with world() as here:
        await here.core.node.publish(publish_request())

        async def lose(call: str, moment: Moment) -> None:
            if (call, moment) == ("rotate", "after"):
                here.keeper.hook = None
                here.keeper.disconnect()

        here.keeper.hook = lose
        here.providers.rotate(password=b"second")
        await trio.sleep(INTERVAL + 5)
        here.providers.rotate(password=b"third")
        await trio.sleep(INTERVAL * 2)
        assert here.keeper.shown("csi-web") == {"password": b"third"}
        assert here.keeper.kept["csi-web"].snapshot.generation == 3
        here.check()

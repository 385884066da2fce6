"""What is counted when, with which labels, and that nothing else is told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio

from csi import errors
from csi.errors import MountFailed, ProviderFailed, ProviderNotFound
from csi.metrics import ERROR_TYPES, Metrics, error_type
from csi.scrape import Address
from fakes.kubelet import publish_message, publish_request, unpublish_message
from fakes.nodeserver import served, world, write_class
from fakes.providersocket import provider_at
from fakes.scraping import LOOPBACK, Samples, counted, samples_in, scrape
from fakes.virtualtime import virtual_time
from fusefs.errors import InvalidTree, KeeperUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from csi.records import MountCall


REFERENCE_BUCKETS = [0.1, 0.13, 0.18, 0.25, 0.33, 0.45, 0.6, 0.81, 1.1, 1.48, 2.0]


def told(metrics: Metrics) -> Samples:
    """Return everything that is told but the process's own."""
    return samples_in(metrics.render("")[0])


def buckets_of(found: Samples) -> dict[float, float]:
    """Return how many refreshes took at most how long."""
    return {
        float(key[1].removeprefix("le=")): value
        for key, value in found.items()
        if key[0] == "rotation_reconcile_duration_sec_bucket"
    }


def test_names_are_the_references() -> None:
    """Dashboards go on working; a rate can be taken before the first event."""
    found = told(Metrics())
    assert found["node_unpublish_total", "os_type=linux"] == 0
    assert found["node_unpublish_error_total", "os_type=linux"] == 0
    assert found["rotation_reconcile_duration_sec_count", "os_type=linux"] == 0
    buckets = buckets_of(found)
    assert [round(bound, 2) for bound in list(buckets)[:-1]] == REFERENCE_BUCKETS
    assert list(buckets)[-1] == float("inf")
    assert not [key for key in found if key[0].endswith("_created")]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.ClassNotFound("shop", "vault"), "SecretProviderClassNotFound"),
        (ProviderFailed("UNAVAILABLE", "why"), "GRPCProviderError"),
        (errors.VersionsMissing("azure"), "GRPCProviderError"),
        (errors.ProviderRefused("any text"), "ProviderError"),
        (ProviderNotFound("azure", ["/p"]), "FailedToLookupProviderGRPCClient"),
        (errors.ProviderNameInvalid("a/b", "x"), "FailedToLookupProviderGRPCClient"),
        (MountFailed("shop", "web", "azure", InvalidTree("a/..", "bad path")), "FileWriteError"),
        (KeeperUnavailable("away"), "FailedToMount"),
        (errors.InvalidRequest(field="f", problem="p", remedy="r"), "FailedToMount"),
        (ZeroDivisionError(), "FailedToMount"),
    ],
)
def test_errors_have_the_references_names(error: Exception, expected: str) -> None:
    """One of a few, whatever happens."""
    assert error_type(error) == expected
    assert error_type(error) in ERROR_TYPES.values()


def test_only_providers_of_this_node_are_labels() -> None:
    """A class can name anything; a million names must not make a million series."""
    metrics = Metrics()
    for number in range(3):
        name = f"invented-{number}"
        metrics.publish_failed(MountFailed("shop", "web", name, ProviderNotFound(name, ["/p"])))
    metrics.publish_failed(
        MountFailed("shop", "web", "azure", ProviderFailed("UNAVAILABLE", "out"))
    )
    assert counted(told(metrics)) == {
        (
            *("node_publish_error_total", "error_type=FailedToLookupProviderGRPCClient"),
            *("os_type=linux", "provider="),
        ): 3,
        (
            *("node_publish_error_total", "error_type=GRPCProviderError"),
            *("os_type=linux", "provider=azure"),
        ): 1,
    }


async def test_calls_of_kubelet_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A publish once, its repetition not; failures with their kind, also of bad requests."""
    caplog.set_level(logging.INFO, "csi.scrape")
    address = Address(host=LOOPBACK, port=0)
    async with served(tmp_path, metrics_address=address) as here:
        for pod in ("web", "other"):
            await here.fails(here.node.NodePublishVolume, publish_message(pod))
        write_class(tmp_path)
        bad = publish_message()
        bad.target_path = ""
        await here.fails(here.node.NodePublishVolume, bad)
        with provider_at(tmp_path / "azure.sock"):
            for _ in range(2):
                await here.call(here.node.NodePublishVolume, publish_message())
        await here.call(here.node.NodeUnpublishVolume, unpublish_message())
        bad_unpublish = unpublish_message()
        bad_unpublish.volume_id = ""
        await here.fails(here.node.NodeUnpublishVolume, bad_unpublish)
        record = caplog.records[0]
        found = counted(await scrape(vars(record)["port"]))
    failed = "node_publish_error_total"
    assert found == {
        ("node_publish_total", "os_type=linux", "provider=azure"): 1,
        (failed, "error_type=SecretProviderClassNotFound", "os_type=linux", "provider="): 2,
        (failed, "error_type=FailedToMount", "os_type=linux", "provider="): 1,
        ("node_unpublish_total", "os_type=linux"): 1,
        ("node_unpublish_error_total", "os_type=linux"): 1,
    }


@virtual_time
async def test_refreshes_are_counted_and_timed() -> None:
    """Unchanged, changed and failed; the time is that of the refresh, not of its wait."""

    async def slow(_: MountCall) -> None:
        await trio.sleep(0.5)

    async def fail(_: MountCall) -> None:
        code = "UNAVAILABLE"
        raise ProviderFailed(code, "the vault is out")

    async with world() as here:
        await here.core.node.publish(publish_request())
        here.providers.hook = slow
        await trio.sleep(121)
        here.providers.rotate(password=b"second")
        await trio.sleep(120)
        here.providers.hook = fail
        await trio.sleep(120)
        found = told(here.core.metrics)
    done = ("rotation_reconcile_total", "os_type=linux", "provider=azure")
    assert found[*done, "rotated=false"] == 1
    assert found[*done, "rotated=true"] == 1
    failed = "rotation_reconcile_error_total"
    kind = "error_type=GRPCProviderError"
    assert found[failed, kind, "os_type=linux", "provider=azure", "rotated=false"] == 1
    duration = "rotation_reconcile_duration_sec"
    assert found[f"{duration}_count", "os_type=linux"] == 3
    assert found[f"{duration}_sum", "os_type=linux"] == pytest.approx(1.0)
    assert list(buckets_of(found).values()) == [1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3]

"""Prometheus, as far as it asks a node server for its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOPBACK: Final = "127.0.0.1"

Samples = dict[tuple[str, ...], float]


def request(target: str = "/metrics", method: str = "GET", headers: str = "") -> bytes:
    """Return a request as it is sent."""
    return f"{method} {target} HTTP/1.1\r\nHost: node\r\n{headers}\r\n".encode()


async def say(port: int, sent: bytes) -> bytes:
    """Send something to a port and return everything that comes back until the end."""
    stream = await trio.open_tcp_stream(LOOPBACK, port)
    async with stream:
        await stream.send_all(sent)
        return b"".join([part async for part in stream])


async def scrape(port: int) -> Samples:
    """Ask for the metrics at a port."""
    answer = await say(port, request())
    return samples_in(answer.partition(b"\r\n\r\n")[2])


def samples_in(text: bytes) -> Samples:
    """Return name, labels and value of every sample but the process's own."""
    return {
        (sample.name, *_labels(sample.labels.items())): float(sample.value)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.startswith(("node_", "rotation_"))
    }


def counted(samples: Samples) -> Samples:
    """Return the counters that are not zero."""
    return {key: value for key, value in samples.items() if key[0].endswith("_total") and value}


def _labels(labels: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{key}={value}" for key, value in sorted(labels)]

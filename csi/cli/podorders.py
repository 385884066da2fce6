"""What the demo asks of the container that it plays, and the answers: a JSON line each. Pure."""

from __future__ import annotations

import msgspec


class Order(msgspec.Struct, frozen=True, tag=True):
    """Base of the orders."""


class Hold(Order, frozen=True):
    """Open the file and read the first half of it."""


class Finish(Order, frozen=True):
    """Read the other half from what `Hold` opened."""


class AwaitContent(Order, frozen=True):
    """Look at the file by every route until each shows `value`."""

    value: str
    seconds: float


class AwaitEvents(Order, frozen=True):
    """Collect file events until every watch has had one."""

    seconds: float


class StartReaders(Order, frozen=True):
    """Read by every route, in threads, over and over; anything but `value` is a failure."""

    value: str
    threads: int


class CountReads(Order, frozen=True):
    """Tell how the readers are doing."""


class StopReaders(Order, frozen=True):
    """Stop the readers and tell how they did."""


class Part(msgspec.Struct, frozen=True):
    """Text that was read."""

    text: str


class Seen(msgspec.Struct, frozen=True):
    """When each route first showed the value, on the monotonic clock; None: never."""

    at: dict[str, float | None]
    version: str


class Happened(msgspec.Struct, frozen=True):
    """The events of each watch, without repetitions."""

    events: dict[str, list[str]]


class Reads(msgspec.Struct, frozen=True):
    """How the readers did.

    `longest_gap` is the longest time, in seconds, between two completed reads of one reader.
    """

    begun: int
    completed: int
    failures: list[str]
    longest_gap: float


AnyOrder = Hold | Finish | AwaitContent | AwaitEvents | StartReaders | CountReads | StopReaders

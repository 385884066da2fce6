"""Control messages as programs of this major version have sent them: understood for ever.

`recorded/messages-1.jsonl` has one message a line, as it went over the socket. A line is never
changed; a new message, or a new field, comes with a new line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
import pytest

from fusefs import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDED: Final = Path(__file__).parent / "recorded" / f"messages-{protocol.MAJOR}.jsonl"
DECODERS: Final[dict[str, msgspec.msgpack.Decoder[Any]]] = {
    "keeper": protocol.AT_KEEPER,
    "node": protocol.AT_NODE,
    "successor": protocol.AT_SUCCESSOR,
}
UNIONS: Final = {
    "keeper": protocol.NodeMessage,
    "node": protocol.KeeperMessage,
    "successor": protocol.ToSuccessor,
}


def lines() -> list[dict[str, Any]]:
    """Return what is recorded."""
    return [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]


def name_of(line: dict[str, Any]) -> str:
    """Return a name for a line."""
    return f"{line['at']}-{line['name']}"


@pytest.mark.parametrize("line", lines(), ids=name_of)
def test_recorded_messages_are_understood(line: dict[str, Any]) -> None:
    """Whoever sent it, each field means what it meant."""
    message = DECODERS[line["at"]].decode(bytes.fromhex(line["packet"]))
    assert type(message).__name__ == line["name"]
    found = msgspec.to_builtins(message, builtin_types=(bytes,))
    assert means(list(plain(found[1:])), line["fields"])


@pytest.mark.parametrize("line", lines(), ids=name_of)
def test_fields_of_later_releases_are_ignored(line: dict[str, Any]) -> None:
    """A later release may add fields: this one takes the rest of the message as it is."""
    decoder = DECODERS[line["at"]]
    packet = bytes.fromhex(line["packet"])
    known = decoder.decode(packet)
    later = [*msgspec.to_builtins(known, builtin_types=(bytes,)), "new", {"field": 1}]
    assert decoder.decode(msgspec.msgpack.encode(later)) == known


@pytest.mark.parametrize("at", DECODERS)
def test_every_message_is_recorded(at: str) -> None:
    """A message that is not recorded could change unnoticed."""
    recorded = {line["name"] for line in lines() if line["at"] == at}
    assert recorded >= {kind.__name__ for kind in get_args(UNIONS[at])} - inherited(at)


def inherited(at: str) -> set[str]:
    """Return the messages that another end is recorded to hear as well."""
    return (
        {kind.__name__ for kind in get_args(protocol.KeeperMessage)} if at == "successor" else set()
    )


def means(found: Any, recorded: Any) -> bool:  # noqa: ANN401 - whatever JSON has
    """Return whether a value is the recorded one, but for fields that came later."""
    if isinstance(recorded, list):
        known = zip(found, recorded, strict=False)
        return len(found) >= len(recorded) and all(means(one, other) for one, other in known)
    return bool(found == recorded)


def plain(value: Any) -> Iterator[Any]:  # noqa: ANN401 - whatever JSON has
    """Yield the elements of an array as JSON can hold them, bytes as text."""
    for each in value:
        if isinstance(each, bytes):
            yield each.decode()
        elif isinstance(each, list | tuple):
            yield list(plain(each))
        else:
            yield each

"""YAML as a tree of text, with yaml.v3's rules and with bounds.

PyYAML's loaders decide too much: `0755` becomes 493, `no` becomes False, a duplicate key wins. Here
libyaml's events become nodes that keep each scalar as it was written, its line, and whether it was
plain, so that the caller decides by the field it wants to fill (as yaml.v3 decodes into a struct).

The text comes from whoever may write a SecretProviderClass, so size, depth and number of nodes and
aliases are bounded before any of them costs something. An alias is a second reference to one node,
never a copy. Only the first document of a stream is read, as yaml.v3 does.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final, Literal

import attrs
import yaml

from provider.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES: Final = 1024 * 1024  # etcd's limit for a whole SecretProviderClass is 1.5 MiB
MAX_DEPTH: Final = 50  # three levels have a meaning
MAX_NODES: Final = 100_000
MAX_ALIASES: Final = 1_000

_LOADER: Final = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # libyaml, where it was built in
_CORE: Final = "tag:yaml.org,2002:"
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS: Final = frozenset({"true", "True", "TRUE", "false", "False", "FALSE"})
_SPECIAL_FLOATS: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INT: Final = re.compile(
    r"(?P<sign>[-+]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<binary>[01]+)"
    r"|0[oO]?(?P<octal>[0-7]+)|(?P<decimal>0|[1-9][0-9]*))"
)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_TIMESTAMP: Final = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")
_NUMBER_STARTS: Final = frozenset("+-.0123456789")
_INT64: Final = range(-(2**63), 2**63)
_LONGEST_NUMBER: Final = 400  # digits; a float64 has no more than 309 before its point
_BASES: Final = {"hex": 16, "binary": 2, "octal": 8, "decimal": 10}
_SHOWN: Final = 10  # a longer scalar is cut in an error, as yaml.v3 cuts it

Kind = Literal["scalar", "sequence", "mapping"]


@attrs.define(kw_only=True)
class Node:
    """One node of a document.

    Attributes:
        kind: What it is.
        line: Where it begins, from 1.
        tag: The explicit tag, shortened (`!!str`); empty without one.
        value: A scalar's text.
        plain: A scalar without quotes and block style, whose text decides its type.
        items: A sequence's items; a mapping's keys and values, in turn.
    """

    kind: Kind
    line: int
    tag: str = ""
    value: str = ""
    plain: bool = False
    items: list[Node] = attrs.field(factory=list)

    @property
    def is_null(self) -> bool:
        """Tell whether this is YAML's null."""
        if self.kind != "scalar":
            return False
        return self.tag == "!!null" or (not self.tag and self.plain and self.value in _NULLS)

    def pairs(self) -> Iterator[tuple[Node, Node]]:
        """Yield a mapping's keys with their values."""
        return zip(self.items[::2], self.items[1::2], strict=True)

    def described(self) -> str:
        """Say what this is, as yaml.v3's errors do."""
        if self.kind == "sequence":
            return "!!seq"
        if self.kind == "mapping":
            return "!!map"
        tag = self.tag or (_resolve(self.value)[0] if self.plain else "!!str")
        encoded = self.value.encode()
        if len(encoded) > _SHOWN:
            return f"{tag} `{encoded[: _SHOWN - 3].decode(errors='replace')}...`"
        return f"{tag} `{self.value}`"

    def number(self) -> int | float | None:
        """Return the number that a scalar stands for, None for anything else."""
        if self.kind != "scalar" or self.tag not in {"", "!!int", "!!float"}:
            return None
        return _resolve(self.value)[1] if self.plain or self.tag else None


class Problems:
    """Collects decoding errors, which yaml.v3 reports together."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: int, problem: str) -> None:
        """Note one problem."""
        self._lines.append(f"line {line}: {problem}")

    def mismatch(self, node: Node, wanted: str) -> None:
        """Note that a node is not of the type that is needed there."""
        self.add(node.line, f"cannot unmarshal {node.described()} into {wanted}")

    def raise_any(self) -> None:
        """Raise all problems as one error, return if there are none.

        Raises:
            InvalidRequest: there are problems.
        """
        if self._lines:
            message = "\n  ".join(["yaml: unmarshal errors:", *self._lines])
            raise InvalidRequest(message)


def parse(text: str) -> Node | None:
    """Return the root of the first document, None for an empty text.

    Raises:
        InvalidRequest: not YAML, or out of bounds.
    """
    if len(text.encode()) > MAX_BYTES:
        message = f"yaml: longer than {MAX_BYTES} bytes"
        raise InvalidRequest(message)
    try:
        return _Builder().build(yaml.parse(text, Loader=_LOADER))
    except yaml.YAMLError as error:
        raise InvalidRequest(_worded(error)) from None


class _Builder:
    """Turns events into nodes, without recursion."""

    def __init__(self) -> None:
        self._open: list[Node] = []
        self._anchors: dict[str, Node] = {}
        self._root: Node | None = None
        self._nodes = 0
        self._aliases = 0

    def build(self, events: Iterator[yaml.Event]) -> Node | None:
        """Consume events up to the end of the first document."""
        for event in events:
            match event:
                case yaml.ScalarEvent():
                    plain = event.style is None or event.style == ""
                    node = self._node("scalar", event)
                    node.value, node.plain = event.value, plain
                    self._attach(node)
                case yaml.SequenceStartEvent():
                    self._enter(self._node("sequence", event))
                case yaml.MappingStartEvent():
                    self._enter(self._node("mapping", event))
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    self._open.pop()
                case yaml.AliasEvent():
                    self._attach(self._aliased(event))
                case yaml.DocumentEndEvent():
                    break
                case _:
                    pass
        return self._root

    def _node(self, kind: Kind, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> Node:
        """Make a node and remember its anchor."""
        self._nodes += 1
        _bounded(self._nodes, MAX_NODES, "nodes")
        mark = event.start_mark
        node = Node(kind=kind, line=mark.line + 1 if mark else 1, tag=_short(event.tag))
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _enter(self, node: Node) -> None:
        """Attach a collection and make it the place for what follows."""
        self._attach(node)
        self._open.append(node)
        _bounded(len(self._open), MAX_DEPTH, "levels")

    def _attach(self, node: Node) -> None:
        """Put a node where the document stands."""
        if self._open:
            self._open[-1].items.append(node)
        else:
            self._root = node

    def _aliased(self, event: yaml.AliasEvent) -> Node:
        """Return the node that an alias stands for."""
        self._aliases += 1
        _bounded(self._aliases, MAX_ALIASES, "aliases")
        node = self._anchors.get(event.anchor or "")
        if node is None:
            message = f"yaml: unknown anchor '{event.anchor}' referenced"
            raise InvalidRequest(message)
        if any(node is parent for parent in self._open):
            message = f"yaml: anchor '{event.anchor}' value contains itself"
            raise InvalidRequest(message)
        return node


def _bounded(count: int, limit: int, what: str) -> None:
    """Raise if there is more of something than any honest text has."""
    if count > limit:
        message = f"yaml: more than {limit} {what}"
        raise InvalidRequest(message)


def _short(tag: str | None) -> str:
    """Shorten a core tag; `!` (not plain, no type given) counts as `!!str`."""
    if tag is None:
        return ""
    if tag == "!":
        return "!!str"
    return f"!!{tag.removeprefix(_CORE)}" if tag.startswith(_CORE) else tag


def _resolve(value: str) -> tuple[str, int | float | None]:
    """Return the type that yaml.v3 gives a plain scalar, and its number if it is one."""
    if value in _NULLS:
        return "!!null", None
    if value in _BOOLS:
        return "!!bool", None
    if _SPECIAL_FLOATS.fullmatch(value):
        return "!!float", math.nan if value.lower() == ".nan" else math.inf
    number = _number(value.replace("_", "")) if value[:1] in _NUMBER_STARTS else None
    if number is not None:
        return "!!int" if isinstance(number, int) else "!!float", number
    return ("!!timestamp" if _TIMESTAMP.fullmatch(value) else "!!str"), None


def _number(digits: str) -> int | float | None:
    """Read a number: an integer of 64 bits, else a float, else nothing."""
    if len(digits) > _LONGEST_NUMBER:
        return None
    if (match := _INT.fullmatch(digits)) and (integer := _integer(match)) in _INT64:
        return integer
    if _FLOAT.fullmatch(digits) and math.isfinite(number := float(digits)):
        return number
    return None


def _integer(match: re.Match[str]) -> int:
    """Compute the integer that `_INT` matched."""
    name, base = next((name, base) for name, base in _BASES.items() if match[name])
    return int(match["sign"] + match[name], base)


def _worded(error: yaml.YAMLError) -> str:
    """Word a syntax error as yaml.v3 does: the same parser, ported to Go, speaks there."""
    if not isinstance(error, yaml.MarkedYAMLError):
        reason = getattr(error, "reason", "not a YAML text")  # a ReaderError has no marks
        return f"yaml: {reason}"
    marks = (error.context_mark, error.problem_mark)
    line = next((mark.line for mark in marks if mark and mark.line), 0)
    if line and isinstance(error, yaml.scanner.ScannerError):
        line += 1  # the parser's lines count from 1 there, the scanner's from 0
    where = f"line {line}: " if line else ""
    return f"yaml: {where}{error.problem or error.context}"

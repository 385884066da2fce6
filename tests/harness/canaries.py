"""Canaries: secrets made for a test, and the search for any form of them where none may be.

A canary is built round random markers, so a hit is never chance. Each marker is searched for in
halves, which finds a secret that was cut, and in every encoding in which programs print bytes.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
import string
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote, quote_plus

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MARKER_LENGTH: Final = 24
_HALF: Final = MARKER_LENGTH // 2  # 71 bits: never found by chance
_ALPHABET: Final = string.ascii_letters + string.digits
_BASE64_BITS: Final = 6
_C_ESCAPES: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t", '"': r"\"", "'": r"\'", "\\": r"\\"}
_GO_ESCAPES: Final = str.maketrans({each: f"\\u{ord(each):04x}" for each in "<>&\u2028"})
_SHOWN: Final = 60  # bytes before a hit, which tell what it is in


def marker() -> str:
    """Return a new random word."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(MARKER_LENGTH))


@attrs.frozen(kw_only=True)
class Canary:
    """A secret of a test.

    Attributes:
        name: What it stands for, as findings call it.
        text: The secret.
        needles: What is searched for.
    """

    name: str
    text: str = attrs.field(repr=False)
    needles: frozenset[bytes] = attrs.field(repr=False)

    @classmethod
    def of(cls, name: str, template: str = "{}") -> Self:
        """Return a canary whose text is `template` with a new marker in each `{}`."""
        markers = [marker() for _ in range(template.count("{}"))]
        pieces = template.split("{}")
        text = pieces[0] + "".join(
            each + piece for each, piece in zip(markers, pieces[1:], strict=True)
        )
        wanted = {half for each in markers for half in (each[:_HALF], each[_HALF:])} | {text}
        return cls(name=name, text=text, needles=_all_forms(each.encode() for each in wanted))

    @classmethod
    def caught(cls, name: str, text: str) -> Self:
        """Return a canary of a secret that somebody else made; it must be long and random."""
        return cls(name=name, text=text, needles=_all_forms([text.encode()]))

    @classmethod
    def binary(cls, name: str) -> Self:
        """Return a canary of 32 bytes that are no text; its text is their base64."""
        content = b"\x00\xff\n" + secrets.token_bytes(29)
        text = base64.b64encode(content).decode()
        return cls(name=name, text=text, needles=_all_forms([content, content[3:], text.encode()]))

    @property
    def decoded(self) -> bytes:
        """The bytes of a binary canary."""
        return base64.b64decode(self.text)


def _all_forms(contents: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(form for content in contents for form in forms(content))


def forms(content: bytes) -> Iterator[bytes]:
    """Yield the encodings of `content` in which it could turn up."""
    yield content
    for shift in range(3):
        inner = _base64_inside(content, shift)
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))
    yield content.hex().encode()
    yield content.hex().upper().encode()
    yield content.hex(" ").encode()
    yield repr(content)[2:-1].encode()
    yield "".join(map(_c_escape, content)).encode()
    yield quote(content, safe="").encode()
    yield quote_plus(content).encode()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return
    for wide in ("utf-16-le", "utf-32-le"):  # as an interpreter's memory holds it
        yield text.encode(wide)
    for escaped in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        yield escaped.encode()
        yield json.dumps(escaped)[1:-1].encode()
        yield escaped.translate(_GO_ESCAPES).encode()
    yield repr(text)[1:-1].encode()
    yield text.encode("unicode_escape")


def _c_escape(byte: int) -> str:
    """Return one byte as protobuf's text form has it."""
    character = chr(byte)
    if character in _C_ESCAPES:
        return _C_ESCAPES[character]
    return character if character.isascii() and character.isprintable() else f"\\{byte:03o}"


def _base64_inside(content: bytes, shift: int) -> bytes:
    """Return what base64 makes of `content` behind `shift` other bytes, whatever surrounds it."""
    encoded = base64.b64encode(bytes(shift) + content)
    first = -(-shift * 8 // _BASE64_BITS)
    last = (shift + len(content)) * 8 // _BASE64_BITS
    return encoded[first:last]


@attrs.frozen(kw_only=True)
class Finding:
    """A canary where none may be."""

    canary: str
    where: str
    before: str


@attrs.frozen
class Searcher:
    """Looks for canaries."""

    canaries: tuple[Canary, ...]

    def in_bytes(self, where: str, data: bytes) -> Iterator[Finding]:
        """Yield a finding for each canary of which any form is in `data`."""
        for canary in self.canaries:
            at = min(
                (hit for needle in canary.needles if (hit := data.find(needle)) >= 0), default=-1
            )
            if at >= 0:
                before = data[max(0, at - _SHOWN) : at].decode(errors="replace")
                yield Finding(canary=canary.name, where=where, before=before)

    def in_tree(self, top: Path, *, planted: Iterable[Path] = ()) -> Iterator[Finding]:
        """Search names, links and regular files below `top`, on its own file system.

        Args:
            top: Where to begin.
            planted: Files into which the test itself put canaries.
        """
        skipped = set(planted)
        for path in files_below(top):
            yield from self.in_bytes(f"name {path}", os.fsencode(path))
            try:
                mode = path.lstat().st_mode
                if stat.S_ISLNK(mode):
                    yield from self.in_bytes(f"link {path}", os.fsencode(path.readlink()))
                elif stat.S_ISREG(mode) and path not in skipped:
                    yield from self.in_bytes(f"file {path}", path.read_bytes())
            except FileNotFoundError:
                continue  # renamed since it was listed

    def in_process(self, pid: int) -> Iterator[Finding]:
        """Search what the system tells of a process, and the deleted files that it has open.

        Raises:
            OSError: The process has ended.
        """
        folder = Path("/proc", str(pid))
        for name in ("cmdline", "environ", "comm", "mountinfo"):
            yield from self.in_bytes(f"{name} of {pid}", (folder / name).read_bytes())
        for link in (folder / "fd").iterdir():
            try:
                target = os.readlink(link)
            except FileNotFoundError:
                continue  # closed since it was listed
            in_memory = target.startswith(("/memfd:", "/secretmem"))
            if target.endswith(" (deleted)") and not in_memory:
                yield from self.in_bytes(f"{target} of {pid}", link.read_bytes())


def files_below(top: Path) -> Iterator[Path]:
    """Yield everything below a directory, without entering mounts or following links."""
    device = top.stat().st_dev
    for folder, folders, names in os.walk(top):
        folders[:] = [each for each in folders if _is_on(Path(folder, each), device)]
        yield from (Path(folder, name) for name in [*folders, *names])


def _is_on(path: Path, device: int) -> bool:
    try:
        return path.lstat().st_dev == device
    except OSError:
        return False  # gone, or a mount whose server is dead

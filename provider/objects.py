"""The `objects` parameter: which objects, under which file names, in which form. Pure.

`objects` is YAML text: a mapping whose key `array` holds a list of strings, each of them again YAML
text, one object. Everything is parsed and checked before the first request to a vault. What a field
may hold, in which order it is checked and how an error reads is the reference's; where this is
stricter, `docs/decisions/` says why.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
from typing import Final

import attrs

from provider import yamltext
from provider.errors import InvalidRequest, Prefixed
from provider.golang import parse_octal_int32, trim_space

MAX_OBJECTS: Final = 5_000  # a mount of 500 is tested; each costs one request to the vault
OBJECT_TYPES: Final = frozenset({"secret", "key", "cert"})
_FORMATS: Final = frozenset({"pem", "pfx"})
_ENCODINGS: Final = frozenset({"hex", "base64", "utf-8"})
_INT32: Final = range(-(2**31), 2**31)
_ALL_BITS: Final = 0o7777

# Where each field of the YAML goes; every one is text but the history.
_HISTORY: Final = "objectVersionHistory"
_TEXT_FIELDS: Final = {
    "objectName": "name",
    "objectAlias": "alias",
    "objectVersion": "version",
    "objectType": "type",
    "objectFormat": "format",
    "objectEncoding": "encoding",
    "filePermission": "file_permission",
}


@attrs.frozen(kw_only=True)
class VaultObject:
    """One object that a class asks for, as written, white space trimmed."""

    name: str = ""
    alias: str = ""
    type: str = ""
    version: str = ""
    version_history: int = 0
    format: str = ""
    encoding: str = ""
    file_permission: str = ""

    @property
    def file_name(self) -> str:
        """Return the path of its file, relative to the target."""
        return self.alias or self.name

    @property
    def object_id(self) -> str:
        """Return the id under which its version is reported; never the alias.

        One entry of a history has its index there, which is the last element of its alias.
        """
        if self.version_history > 1:
            return f"{self.type}/{self.name}/{posixpath.basename(self.alias)}"
        return f"{self.type}/{self.name}"

    @property
    def label(self) -> str:
        """Return the words with which errors name this object."""
        return f"objectType:{self.type}, objectName:{self.name}, objectVersion:{self.version}"


def parse_objects(text: str) -> tuple[VaultObject, ...]:
    """Read and check all objects of a class.

    Raises:
        InvalidRequest: the text is not of the form, or an object is not valid.
    """
    if not trim_space(text):
        message = "objects is not set"
        raise InvalidRequest(message, remedy="give the parameter objects a list of objects")
    with Prefixed("failed to yaml unmarshal objects, error: "):
        texts = parse_array(text)
        if len(texts) > MAX_OBJECTS:
            message = f"objects holds {len(texts)} objects, the most are {MAX_OBJECTS}"
            raise InvalidRequest(message, remedy="split the class")
    objects = []
    for index, item in enumerate(texts):
        with Prefixed(f"unmarshal failed for keyVaultObjects at index {index}, error: "):
            wanted = parse_object(item)
        with naming(wanted):
            check_object(wanted)
        objects.append(wanted)
    return tuple(objects)


def naming(wanted: VaultObject) -> Prefixed:
    """Return a context in which errors name the object that they are about."""
    return Prefixed(f"failed to get {wanted.label}: ")


def parse_array(text: str) -> list[str]:
    """Return the texts of the single objects.

    Raises:
        InvalidRequest: not a mapping with a list of strings.
    """
    problems = yamltext.Problems()
    texts: list[str] = []
    root = yamltext.parse(text)
    for name, value in _fields(root, "types.StringArray", problems).items():
        if name != "array" or value.is_null:
            continue
        if value.kind != "sequence":
            problems.mismatch(value, "[]string")
            continue
        scalars = (_text(item, problems) for item in value.items)
        texts.extend(scalar for scalar in scalars if scalar is not None)
    problems.raise_any()
    return texts


def parse_object(text: str) -> VaultObject:
    """Return one object, decoded and trimmed but not checked.

    Raises:
        InvalidRequest: not a mapping of scalars, or a key twice.
    """
    problems = yamltext.Problems()
    texts: dict[str, str] = {}
    history = 0
    root = yamltext.parse(text)
    for name, value in _fields(root, "types.KeyVaultObject", problems).items():
        if name == _HISTORY:
            history = _int32(value, problems)
        elif name in _TEXT_FIELDS:
            texts[_TEXT_FIELDS[name]] = trim_space(_text(value, problems) or "")
    problems.raise_any()
    return VaultObject(version_history=history, **texts)


def check_object(wanted: VaultObject) -> None:
    """Check one object: format, encoding, file name (the reference's order), then its mode.

    Raises:
        InvalidRequest: one of them is not valid.
    """
    check_format(wanted.format, wanted.type)
    check_encoding(wanted.encoding, wanted.type)
    check_file_name(wanted.file_name)
    parse_file_permission(wanted.file_permission, default=0)


def check_format(name: str, object_type: str) -> None:
    """Check `objectFormat`.

    Raises:
        InvalidRequest: unknown, or not for this type.
    """
    if not name:
        return
    if name.lower() not in _FORMATS:
        message = f"invalid objectFormat: {name}, should be PEM or PFX"
        raise InvalidRequest(message)
    # Case-sensitive like the reference, where `PFX` for a certificate passes and means nothing.
    if name == "pfx" and object_type != "secret":
        message = "PFX format only supported for objectType: secret"
        raise InvalidRequest(message)


def check_encoding(name: str, object_type: str) -> None:
    """Check `objectEncoding`.

    Raises:
        InvalidRequest: unknown, or not for this type.
    """
    if not name:
        return
    if object_type != "secret":
        message = "objectEncoding only supported for objectType: secret"
        raise InvalidRequest(message)
    if name.lower() not in _ENCODINGS:
        message = f"invalid objectEncoding: {name}, should be hex, base64 or utf-8"
        raise InvalidRequest(message)


def check_file_name(name: str) -> None:
    """Check the path of a file. The driver that writes it checks more.

    Raises:
        InvalidRequest: empty, absolute, or with `..` in it.
    """
    if not name:
        message = "file name must not be empty"
        raise InvalidRequest(message, remedy="set objectName or objectAlias")
    if name.startswith("/"):
        message = "file name must be a relative path"
        raise InvalidRequest(message, remedy="remove the leading / of objectAlias")
    if ".." in name:
        message = "file name must not contain '..'"
        raise InvalidRequest(message, remedy="choose an objectAlias without '..'")


def parse_file_permission(text: str, *, default: int) -> int:
    """Return the mode of a file, which is the caller's unless the object has one.

    Raises:
        InvalidRequest: not an octal number between 0 and 7777.
    """
    if not text:
        return default
    with Prefixed("file permission must be a valid octal number: "):
        mode = parse_octal_int32(text)
        if not 0 <= mode <= _ALL_BITS:
            message = f'strconv.ParseInt: parsing "{text}": value out of range'
            raise InvalidRequest(message, remedy="filePermission is at most 0777")
    return mode


def _fields(
    root: yamltext.Node | None, wanted: str, problems: yamltext.Problems
) -> dict[str, yamltext.Node]:
    """Return the fields of a mapping, empty for an empty document."""
    if root is None or root.is_null:
        return {}
    if root.kind != "mapping":
        problems.mismatch(root, wanted)
        return {}
    fields: dict[str, yamltext.Node] = {}
    lines: dict[str, int] = {}
    for key, value in root.pairs():
        name = _text(key, problems)
        if name is None:
            continue
        if name == "<<":
            problems.add(key.line, "merge keys (<<) are not supported, write the fields out")
        elif name in lines:
            problem = f'mapping key "{name}" already defined at line {lines[name]}'
            problems.add(key.line, problem)
        lines.setdefault(name, key.line)
        fields.setdefault(name, value)
    return fields


def _text(node: yamltext.Node, problems: yamltext.Problems) -> str | None:
    """Decode a node into a string: any scalar as it was written, None for null."""
    if node.kind != "scalar":
        problems.mismatch(node, "string")
        return None
    if node.is_null:
        return None
    if node.tag != "!!binary":
        return node.value
    try:
        return base64.b64decode("".join(node.value.split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        problems.add(node.line, "!!binary value contains invalid base64 data")
        return None


def _int32(node: yamltext.Node, problems: yamltext.Problems) -> int:
    """Decode a node into a 32-bit integer: any plain number, its fraction cut off."""
    if node.is_null:
        return 0
    number = node.number()
    if number is None or not abs(number) < 2**63 or int(number) not in _INT32:
        problems.mismatch(node, "int32")
        return 0
    return int(number)

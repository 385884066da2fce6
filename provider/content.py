"""From what a vault answered to the bytes and the mode of a file. Pure.

Secret text is written byte for byte; nothing adds or removes a newline. `objectEncoding` decodes
with exactly Go's strictness: where Python's decoders skip junk or white space, Go's do not. Unlike
Go's, the errors quote nothing of the content.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

from provider.errors import InvalidRequest, Malformed, Unsupported
from provider.golang import quote
from provider.model import MountedFile, SecretBytes
from provider.objects import parse_file_permission

if TYPE_CHECKING:
    from provider.model import SecretBundle
    from provider.objects import VaultObject

PERMISSION_BITS: Final = 0o777  # what the protocol carries; setuid and the like never had effect

_BASE64: Final = re.compile(
    rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.DOTALL
)
_ALPHABET: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_NEWLINES: Final = frozenset(b"\r\n")
_PAD: Final = ord("=")
_QUANTUM: Final = 4  # characters that carry three bytes
_FIRST_PAD: Final = 2  # the first place in a quantum where `=` may stand

_NAME: Final = re.compile(r"[0-9A-Za-z-]{1,127}")
_VERSION: Final = re.compile(r"[0-9A-Za-z-]{0,127}")

PEM: Final = "application/x-pem-file"
PKCS12: Final = "application/x-pkcs12"


def check_deliverable(wanted: VaultObject) -> None:
    """Check that this version can deliver an object, before anything is asked of a vault.

    Raises:
        Unsupported: it is of a kind that comes with a later version.
        InvalidRequest: its type does not exist, or no vault can hold an object of that name.
    """
    if wanted.type in {"key", "cert"}:
        message = f"objectType {wanted.type} is not supported yet"
        raise Unsupported(message, remedy="only objectType: secret is")
    if wanted.type != "secret":
        message = "Invalid vaultObjectTypes. Should be secret, key, or cert"
        raise InvalidRequest(message, remedy="objectType is case-sensitive")
    if wanted.version_history > 1:
        message = f"objectVersionHistory {wanted.version_history} is not supported yet"
        raise Unsupported(message, remedy="leave it out, or use one object for each version")
    if wanted.format.lower() == "pfx":
        message = "objectFormat pfx is not supported yet"
        raise Unsupported(message, remedy="only secrets that are delivered as they are")
    # Both become path segments of the request; what a vault cannot hold must not shape a URL.
    if not _NAME.fullmatch(wanted.name):
        message = f"objectName {quote(wanted.name)} is not a name that a vault can hold"
        raise InvalidRequest(message, remedy="1 to 127 letters, digits and hyphens")
    if not _VERSION.fullmatch(wanted.version):
        message = f"objectVersion {quote(wanted.version)} is not a version id"
        raise InvalidRequest(message, remedy="leave it empty for the current version")


def secret_file(wanted: VaultObject, bundle: SecretBundle, *, default_mode: int) -> MountedFile:
    """Return the file of one secret.

    Raises:
        InvalidRequest: the content is not of the encoding that the object names.
        Malformed: the vault left out what every secret has.
    """
    if bundle.value is None:
        message = "secret value is nil"
        raise Malformed(message)
    if bundle.object_id is None:
        message = "secret id is nil"
        raise Malformed(message)
    if bundle.key_id:
        _check_certificate_backed(bundle)
    mode = parse_file_permission(wanted.file_permission, default=default_mode)
    return MountedFile(
        path=wanted.file_name,
        content=content_bytes(bundle.value, wanted.type, wanted.encoding),
        mode=mode & PERMISSION_BITS,
        object_id=wanted.object_id,
        version=bundle.object_id.rstrip("/").rpartition("/")[2],
    )


def content_bytes(value: SecretBytes, object_type: str, encoding: str) -> SecretBytes:
    """Decode a value as `objectEncoding` says; keys and certificates are never decoded.

    Raises:
        InvalidRequest: it is not of that encoding, or there is no such encoding.
    """
    if object_type.lower() != "secret":
        return value
    match encoding.lower():
        case "" | "utf-8":
            return value
        case "base64":
            return SecretBytes(_decode_base64(value.reveal()))
        case "hex":
            return SecretBytes(_decode_hex(value.reveal()))
        case _:
            message = "invalid objectEncoding. Should be utf-8, base64, or hex"
            raise InvalidRequest(message)


def _check_certificate_backed(bundle: SecretBundle) -> None:
    """Check that the secret behind a certificate can be delivered as it is."""
    if bundle.content_type == PKCS12:
        message = "the secret of a certificate in PKCS#12 form is not supported yet"
        raise Unsupported(message, remedy="a certificate with content type PEM is delivered")
    if bundle.content_type != PEM:
        message = f"failed to get certificate. unknown content type '{bundle.content_type or ''}'"
        raise InvalidRequest(message)


def _decode_base64(text: bytes) -> bytes:
    """Decode standard base64 as Go does: newlines anywhere, padding required."""
    packed = text.translate(None, b"\r\n")
    if _BASE64.fullmatch(packed):
        return base64.b64decode(packed)
    message = f"illegal base64 data at input byte {_base64_fault(text)}"
    raise InvalidRequest(message, remedy="the secret is not base64, see objectEncoding")


def _base64_fault(text: bytes) -> int:
    """Return the position that Go's decoder reports for text that it refuses."""
    filled = 0  # characters of the current quantum
    for position, character in enumerate(text):
        if character in _NEWLINES:
            continue
        if character == _PAD and filled >= _FIRST_PAD:
            return _padding_fault(text, position, filled)
        if character not in _ALPHABET:
            return position
        filled = (filled + 1) % _QUANTUM
    return len(text) - filled


def _padding_fault(text: bytes, position: int, filled: int) -> int:
    """Return what is wrong from a padding character on, which is where a text must end."""
    after = [at for at in range(position + 1, len(text)) if text[at] not in _NEWLINES]
    if filled == _FIRST_PAD:
        if not after:
            return len(text)
        if text[after[0]] != _PAD:
            return after[0]
        after = after[1:]
    return after[0] if after else len(text)


def _decode_hex(text: bytes) -> bytes:
    """Decode hexadecimal digits as Go does: nothing but digits, an even number of them."""
    for position, character in enumerate(text):
        if character not in _HEX:
            message = f"encoding/hex: invalid byte at position {position}"
            raise InvalidRequest(message, remedy="the secret is not hex, see objectEncoding")
    if len(text) % 2:
        message = "encoding/hex: odd length hex string"
        raise InvalidRequest(message, remedy="the secret is not hex, see objectEncoding")
    return bytes.fromhex(text.decode("ascii"))

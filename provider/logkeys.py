"""Names of the fields in log records."""

from __future__ import annotations

from typing import Final

POD: Final = "pod"
NAMESPACE: Final = "namespace"
VAULT: Final = "vault"
FILES: Final = "files"
SECONDS: Final = "seconds"
CODE: Final = "code"
SOCKET: Final = "socket"

ALL: Final = (POD, NAMESPACE, VAULT, FILES, SECONDS, CODE, SOCKET)

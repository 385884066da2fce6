"""The API server's own interface, over a unix socket that reaches into the node's network.

For what is asked often or has to be watched; `kubectl` is for what a person would type.
"""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALL_TIMEOUT_S: Final = 15.0

Thing = dict[str, Any]  # an object of the API; its shape is Kubernetes'


class ApiError(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        """Build the message from the answer."""
        super().__init__(f"HTTP status {status}: {text[:2000]}")
        self.status = status


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Api:
    """Calls to the API server, as the administrator."""

    def __init__(self, path: Path) -> None:
        """Use the socket at `path`, where `kubectl proxy` listens."""
        self._path = path

    def text(self, path: str, **query: str) -> str:
        """Return what is at a path of the API, as it comes.

        Raises:
            ApiError: The server says no.
            OSError: There is no server.
        """
        with closing(_Connection(self._path, CALL_TIMEOUT_S)) as connection:
            connection.request("GET", _with(path, query))
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        if answer.status != http.HTTPStatus.OK:
            raise ApiError(answer.status, text)
        return text

    def get(self, path: str, **query: str) -> Thing:
        """Return the object at a path of the API; raises as `text` does."""
        found: Thing = json.loads(self.text(path, **query))
        return found

    def find(self, path: str) -> Thing | None:
        """Return what is at a path, or None if there is nothing."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == http.HTTPStatus.NOT_FOUND:
                return None
            raise

    def items(self, path: str, **query: str) -> list[Thing]:
        """Return the items of a list."""
        found: list[Thing] = self.get(path, **query)["items"]
        return found

    def watch(self, path: str, *, timeout_s: float, **query: str) -> Iterator[tuple[str, Thing]]:
        """Yield what is in a list and then what happens to it: ADDED, MODIFIED, DELETED.

        It ends when nothing has happened for `timeout_s`.
        """
        with closing(_Connection(self._path, timeout_s)) as connection:
            connection.request("GET", _with(path, {**query, "watch": "1"}))
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                raise ApiError(answer.status, answer.read().decode())
            try:
                while line := answer.readline():
                    event = json.loads(line)
                    yield event["type"], event["object"]
            except TimeoutError:
                return

    def is_ready(self) -> bool:
        """Return whether the server answers and says that it is ready."""
        with closing(_Connection(self._path, CALL_TIMEOUT_S)) as connection:
            try:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == http.HTTPStatus.OK
            except OSError:
                return False


def _with(path: str, query: dict[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path

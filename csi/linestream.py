"""An answer that does not end: lines as they come, read in a thread that can be woken."""

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import urllib3

if TYPE_CHECKING:
    from collections.abc import Iterator


class LineStream:
    """The answer to a watch: read by one thread at a time, closed whenever its task ends."""

    def __init__(self) -> None:
        """Wait for the answer."""
        self._lock = threading.Lock()
        self._closed = False
        self._reading = False
        self._response: urllib3.HTTPResponse | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._rest = b""

    def opened(self, response: urllib3.HTTPResponse) -> None:
        """Take the answer; if nobody waits for it any more, close it."""
        with self._lock:
            self._response = response
            self._chunks = response.stream()
            closed = self._closed
        if closed:
            response.close()

    def close(self) -> None:
        """Close it; a thread that is reading wakes up and does the rest."""
        with self._lock:
            self._closed = True
            if self._response is None:
                return
            if self._reading:
                with suppress(Exception):  # it may have ended by itself
                    self._response.shutdown()
            else:
                self._response.close()

    def read_line(self) -> bytes:
        """Return the next line; empty at the end."""
        with self._lock:
            if self._closed:
                return b""
            self._reading = True
        try:
            while b"\n" not in self._rest:
                chunk = next(self._chunks, b"")
                if not chunk:
                    return b""
                self._rest += chunk
            line, self._rest = self._rest.split(b"\n", 1)
            return line
        finally:
            with self._lock:
                self._reading = False
                if self._closed and self._response is not None:
                    self._response.close()

"""Whether kubelet may count on this node server, shown to a probe by a file.

A file, because looking for one costs a probe a millisecond and no port: ``test -e PATH``. It is
there while the server is ready, and only then: what a killed predecessor in the same container left
is removed at the start. Synchronous, so that it never says what was true a moment ago.
"""

import enum
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from csi import logkeys

log = logging.getLogger(__name__)


class Need(enum.Enum):
    """What a node server must have to be ready; the value is what a log says of its want."""

    SERVING = "a CSI socket that is served"
    KEEPER = "a session with the keeper"
    REGISTRATION = "a registration that kubelet has accepted"


class Readiness:
    """What is had and what is wanting."""

    def __init__(self, file: Path | None, needs: Iterable[Need]) -> None:
        """Have none of the needs met; nothing is shown outside `showing`.

        Args:
            file: There while the server is ready; None: nobody looks.
            needs: What it takes.
        """
        self._file = file
        self._wanting = set(needs)
        self._ready = False
        self._showing = False

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the file inside the block, as soon and as long as it is true."""
        self._remove()
        self._showing = True
        try:
            yield
        finally:
            self._showing = False
            self._remove()

    def note(self, need: Need, *, met: bool) -> None:
        """Note whether one of the needs is met."""
        if met:
            self._wanting.discard(need)
        else:
            self._wanting.add(need)
        self._update()

    def _update(self) -> None:
        ready = not self._wanting
        if not self._showing or ready is self._ready:
            return
        self._ready = ready
        if ready:
            log.info("ready")
            self._create()
        else:
            wanting = ", ".join(sorted(need.value for need in self._wanting))
            log.info("not ready any more", extra={logkeys.WANTING: wanting})
            self._remove()

    def _create(self) -> None:
        if self._file is None:
            return
        try:
            self._file.touch(mode=0o644)
        except OSError as error:
            # Nobody will count on this server; it serves all the same.
            log.error(  # noqa: TRY400 - the operator's, not a defect
                "cannot create the ready file: --ready-file: name one in a writable directory",
                extra={logkeys.PATH: str(self._file), logkeys.ERROR: str(error)},
            )

    def _remove(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)

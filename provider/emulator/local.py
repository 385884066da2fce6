"""The emulator inside the calling process, in a thread of its own: for tests."""

from __future__ import annotations

import contextlib
import functools
import queue
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from provider.emulator.client import EmulatorClient
from provider.emulator.server import serve
from provider.emulator.state import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from provider.emulator.config import EmulatorConfig

_START_S = 30.0


@contextlib.contextmanager
def running(
    config: EmulatorConfig,
    directory: Path | None = None,
    port: int = 0,
    *,
    address: str = LOOPBACK,
    ca_key_file: Path | None = None,
) -> Iterator[EmulatorClient]:
    """Run an emulator while the block runs; yields its client.

    Args:
        config: What to serve.
        directory: Where its files go; a temporary one by default.
        port: Port on `address`; 0 takes a free one.
        address: As `serve` wants it.
        ca_key_file: As `serve` wants it.

    Raises:
        OSError: The port is taken, or the directory cannot be written.
        ConfigInvalid: A first secret breaks a limit of the service, or an argument cannot be.
    """
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emulator-")))
        outcome: queue.SimpleQueue[Callable[[], None] | BaseException] = queue.SimpleQueue()
        serving = functools.partial(
            serve, config, directory, port, address=address, ca_key_file=ca_key_file
        )
        thread = threading.Thread(
            target=_run, args=(serving, outcome), name="emulator", daemon=True
        )
        thread.start()
        started = outcome.get(timeout=_START_S)
        if isinstance(started, BaseException):
            thread.join()
            raise started
        try:
            yield EmulatorClient.from_dir(directory)
        finally:
            started()
            thread.join()


def _run(
    serving: Callable[..., Awaitable[None]],
    outcome: queue.SimpleQueue[Callable[[], None] | BaseException],
) -> None:
    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(serving)
            except Exception as error:  # noqa: BLE001 - belongs to the thread that waits
                outcome.put(error)
            else:
                outcome.put(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))

    trio.run(main)

"""The vault of a run across restarts of the real emulator, here in a thread."""

from __future__ import annotations

import os
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from csi.cli.errors import UnknownSecret, VaultRefused
from csi.cli.vaultstate import VAULT, VaultState
from fakes.polling import poll_value
from provider.emulator import EmulatorClient, EmulatorConfig, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CONFIG = EmulatorConfig.parse(
    "tenant: t\n"
    "principals: {app: {client_id: c, client_secret: s}}\n"
    f"vaults: {{{VAULT}: {{access: {{app: [get]}}, secrets: {{known: from the file}}}}}}\n"
)


class FakeProgram:
    """The emulator, as its supervisor sees it: here it is this process."""

    def __init__(self) -> None:
        self.pid: int | None = os.getpid()


@asynccontextmanager
async def kept(directory: Path) -> AsyncIterator[VaultState]:
    """Keep the vault of whatever emulator runs in `directory`."""
    state = VaultState(EmulatorClient.from_dir(directory), FakeProgram(), ["known"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(state.run)
        yield state
        nursery.cancel_scope.cancel()


def value_in(directory: Path) -> str:
    """Return what the vault holds now."""
    exported = EmulatorClient.from_dir(directory).export_state()
    assert exported is not None
    [secret] = exported.vaults[VAULT].secrets
    return str(secret.versions[-1].value)


async def test_set_secret_survives_a_restart(tmp_path: Path) -> None:
    """A successor at the same place has the version before anybody is let through."""
    with trio.fail_after(30), ExitStack() as stack:
        stack.enter_context(running(CONFIG, tmp_path))
        async with kept(tmp_path) as state:
            version = await state.set_secret("known", "changed")
            assert version in str(EmulatorClient.from_dir(tmp_path).export_state())
            await trio.to_thread.run_sync(stack.close)
            with running(CONFIG, tmp_path):
                await state.set_secret("known", "changed again")
                assert value_in(tmp_path) == "changed again"


async def test_restart_brings_the_content_back(tmp_path: Path) -> None:
    """What the configuration says is replaced by what the vault held last."""
    with trio.fail_after(30), ExitStack() as stack:
        stack.enter_context(running(CONFIG, tmp_path))
        async with kept(tmp_path) as state:
            await state.set_secret("known", "changed")
            await trio.to_thread.run_sync(stack.close)
            with running(CONFIG, tmp_path):
                await poll_value(lambda: value_in(tmp_path), "changed")


async def test_order_waits_for_the_emulator(tmp_path: Path) -> None:
    """Set while it is down is carried out when it is back."""
    with trio.fail_after(30):
        async with kept(tmp_path) as state:
            with ExitStack() as stack:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(state.set_secret, "known", "patient")
                    await trio.testing.wait_all_tasks_blocked()
                    stack.enter_context(running(CONFIG, tmp_path))
                assert value_in(tmp_path) == "patient"


async def test_unknown_name_does_not_reach_the_vault(tmp_path: Path) -> None:
    """It is refused at once, also while there is no emulator."""
    async with kept(tmp_path) as state:
        with pytest.raises(UnknownSecret, match="there is no secret 'other'; there are known"):
            await state.set_secret("other", "value")


async def test_refusal_names_the_secret_only(tmp_path: Path) -> None:
    """A value that Key Vault would not take is not repeated in the error."""
    with running(CONFIG, tmp_path):
        async with kept(tmp_path) as state:
            with pytest.raises(VaultRefused, match="'known'") as caught:
                await state.set_secret("known", "canary" * 10_000)
    assert "canary" not in str(caught.value)

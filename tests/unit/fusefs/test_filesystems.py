"""Which file system a volume gets, for every wish and every obstacle."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import pytest

from fusefs import filesystems
from fusefs.errors import KernelUnsupported, OverBudget
from fusefs.filesystems import Choice, Request, choose

if TYPE_CHECKING:
    from fusefs.protocol import WantedFilesystem

FLAGS: Final = 0b101
WISHES: Final[tuple[WantedFilesystem, ...]] = ("auto", "fuse", "tmpfs")


class Trial:
    """A FUSE mount on trial.

    Attributes:
        opened: The paths that one was made at.
        closed: How many were taken away again.
        error: Why none can be made.
        offered: What its kernel offers.
    """

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.closed = 0
        self.error: Exception | None = None
        self.offered = FLAGS

    def open(self, private: str) -> Trial:
        """Make one."""
        self.opened.append(private)
        if self.error:
            raise self.error
        return self

    def require(self, flags: int) -> None:
        """Check what the kernel offers."""
        if flags & ~self.offered:
            message = "the kernel is too old"
            raise KernelUnsupported(message)

    def close(self) -> None:
        """Take it away."""
        self.closed += 1


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Return what stands for a FUSE mount."""
    made = Trial()
    monkeypatch.setattr(filesystems, "Connection", made)
    return made


def ask(wanted: WantedFilesystem, *, found: bool = False, free_bytes: int | None = None) -> Choice:
    """Ask for a volume that needs 10 bytes and all flags."""
    return choose(
        Request(
            wanted=wanted, found=found, needed_bytes=10, free_bytes=free_bytes, required_flags=FLAGS
        ),
        "private",
    )


@pytest.mark.parametrize("wanted", ["auto", "fuse"])
def test_fuse_is_had_where_it_can_be(trial: Trial, wanted: WantedFilesystem) -> None:
    """A trial shows it, and is taken away again."""
    assert ask(wanted, free_bytes=10) == Choice(filesystem="fuse")
    assert (trial.opened, trial.closed) == (["private"], 1)


@pytest.mark.parametrize("wanted", WISHES)
def test_found_tmpfs_stays_whatever_is_wanted(trial: Trial, wanted: WantedFilesystem) -> None:
    """A pod may be using it; there is nothing to try."""
    choice = ask(wanted, found=True, free_bytes=0)
    assert choice == Choice(filesystem="tmpfs", reason=filesystems.FOUND, found=True)
    assert not trial.opened


def test_wanted_tmpfs_needs_no_reason(trial: Trial) -> None:
    """Who asks for a tmpfs gets one, also where the budget is spent."""
    assert ask("tmpfs", free_bytes=0) == Choice(filesystem="tmpfs")
    assert not trial.opened


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(OSError(errno.ENOMEM, "no memory"), "no memory", id="error"),
        pytest.param(KernelUnsupported("no INIT"), "no INIT", id="kernel"),
    ],
)
def test_impossible_fuse_is_a_reason(trial: Trial, error: Exception, text: str) -> None:
    """What prevents FUSE is why the volume is a tmpfs, or why there is none."""
    trial.error = error
    choice = ask("auto")
    assert choice.filesystem == "tmpfs"
    assert text in choice.reason
    with pytest.raises(KernelUnsupported, match=text):
        ask("fuse")


def test_missing_device_names_the_remedy(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /dev/fuse the reason says how to have one."""
    trial.error = OSError(errno.ENOENT, "No such file")
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    assert "load the kernel module fuse" in ask("auto").reason


def test_old_kernel_is_a_reason(trial: Trial) -> None:
    """A kernel that does not offer what the volume needs is found out on trial."""
    trial.offered = 0b001
    assert ask("auto") == Choice(filesystem="tmpfs", reason="the kernel is too old")
    with pytest.raises(KernelUnsupported, match="too old"):
        ask("fuse")
    assert trial.closed == 2


def test_spent_budget_is_a_reason(trial: Trial) -> None:
    """Past the memory budget there is a tmpfs, or a refusal that names the flag."""
    choice = ask("auto", free_bytes=9)
    assert choice.filesystem == "tmpfs"
    assert "--memory-limit" in choice.reason
    with pytest.raises(OverBudget, match="--memory-limit"):
        ask("fuse", free_bytes=9)
    assert not trial.opened

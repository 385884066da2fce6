"""What the demo prints, and the signals that end it."""

from __future__ import annotations

import io
import os
import signal

import pytest
import trio
from rich.console import Console

from csi.cli.errors import StepFailed
from csi.cli.screen import Screen, seconds
from csi.cli.signals import StopSignals


@pytest.fixture
def printed() -> io.StringIO:
    """Return what a screen made by `screen_on` prints on."""
    return io.StringIO()


def screen_on(printed: io.StringIO) -> Screen:
    """Return a screen that prints into a pipe."""
    return Screen(Console(file=printed, highlight=False, width=60))


def test_piped_output_is_plain_and_whole(printed: io.StringIO) -> None:
    """No colour codes, no cut lines: paths stay as they are."""
    screen, path = screen_on(printed), "/tmp/" + "long-name/" * 12
    screen.title("title", "what this is")
    with screen.step("A step", "It matters, because " + "words " * 20):
        screen.command(f"ls -l {path}", "one\ntwo")
        screen.event("kubelet calls", "OK")
        screen.verify("the claim holds", "as seen", holds=True)
        screen.table(("left", "right"), [("a", "b")])
    screen.close()
    text = printed.getvalue()
    assert "\x1b" not in text
    assert path in text
    assert "1  A step" in text
    assert "the claim holds  as seen" in text
    assert "1 claims verified in" in text
    assert all(len(line) <= 60 for line in text.splitlines() if "words" in line)


def test_false_claim_ends_the_step(printed: io.StringIO) -> None:
    """What does not hold is never printed as verified, and the error says what was seen."""
    screen = screen_on(printed)
    with (
        pytest.raises(StepFailed, match="not so: the sky is green; seen: blue"),
        screen.step("A step", "why"),
    ):
        screen.verify("the sky is green", "blue", holds=False)
    assert "this step failed" in printed.getvalue()
    assert "the sky is green" not in printed.getvalue()


def test_durations_are_read_easily() -> None:
    """Milliseconds below a second, seconds above."""
    assert [seconds(0.0042), seconds(0.25), seconds(12.34)] == ["4 ms", "250 ms", "12.3 s"]


async def test_signal_cancels_the_work() -> None:
    """Work is cancelled, its clean-up runs, and the signal is told."""
    signals, cleaned = StopSignals(), []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(True)

    with trio.fail_after(5), signals.noted():
        await signals.or_done(work)
    assert (cleaned, signals.came) == ([True], signal.SIGTERM)


async def test_signal_before_the_work_counts() -> None:
    """One that came while there was no loop cancels the work at once."""
    signals = StopSignals()
    with trio.fail_after(5), signals.noted():
        os.kill(os.getpid(), signal.SIGINT)
        await signals.or_done(trio.sleep_forever)
    assert signals.came is signal.SIGINT


async def test_work_that_ends_is_done() -> None:
    """Without a signal nothing is cancelled, and errors come out as they are."""
    signals = StopSignals()

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise StepFailed("reason")  # noqa: EM101 - a stand-in

    with signals.noted():
        await signals.or_done(trio.lowlevel.checkpoint)
        with pytest.raises(StepFailed, match="reason"):
            await signals.or_done(fail)
    assert signals.came is None


def test_handlers_are_put_back() -> None:
    """Outside of the block signals do what they did before."""
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals().noted():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before

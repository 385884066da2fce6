"""Programs that make things: their output, and what is told when they fail."""

from __future__ import annotations

import sys

import pytest

from cluster.commands import CommandFailed, Progress, run


def test_each_line_is_told_as_it_comes() -> None:
    """Both streams are returned, and every line is passed on."""
    seen: list[str] = []
    program = "import sys; print('one', flush=True); print('two', file=sys.stderr)"
    output = run([sys.executable, "-c", program], each_line=seen.append)
    assert output == "one\ntwo\n"
    assert seen == ["one", "two"]


def test_failure_tells_the_end_of_the_output() -> None:
    """The message has the status and the last lines, not the first of many."""
    program = "import sys; print(*range(100), sep='\\n'); sys.exit(3)"
    with pytest.raises(CommandFailed, match=r"exit status 3\n75\n") as caught:
        run([sys.executable, "-c", program])
    assert caught.value.status == 3
    assert str(caught.value).endswith("\n99")


def test_progress_is_said_now_and_then() -> None:
    """Of many lines only those are said that come long enough after the last."""
    said: list[str] = []
    patient, eager = Progress(said.append, every_s=3600), Progress(said.append, every_s=0)
    for number in range(3):
        patient(f"patient {number}")
    assert said == []
    eager("eager")
    assert said == ["eager (0 s)"]

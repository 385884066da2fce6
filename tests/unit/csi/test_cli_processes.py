"""Children that are started again: back-off, changes, stopping. With real, small children."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import trio

from csi.cli import peek, traces
from csi.cli.processes import Changes, Program, Supervised, backoff, tail

# A module that serves until it is told to stop, and one that ends at once.
LASTING = ("http.server", "--bind", "127.0.0.1", "0")
SHORT = ("calendar", "2026", "1")
RUN = "run-of-the-test"


def supervised(directory: Path, arguments: tuple[str, ...]) -> tuple[Supervised, Changes]:
    """Return a program to be supervised, with its log in `directory`."""
    changes = Changes()
    program = Program(name="program", arguments=arguments)
    return (
        Supervised(program, log_file=directory / "log", run=RUN, changes=changes),
        changes,
    )


def test_first_deaths_are_answered_at_once() -> None:
    """Who is killed now and then is started without delay; who keeps dying waits longer."""
    assert [backoff(deaths) for deaths in range(4)] == [0.0, 0.0, 0.0, 0.0]
    delays = [backoff(deaths) for deaths in range(4, 20)]
    assert delays == sorted(delays)
    assert 0 < delays[0] < 1 < delays[-1] < 5


async def test_change_before_the_wait_is_seen() -> None:
    """Whoever waits beyond a number does not wait for what has happened already."""
    changes = Changes()
    seen = changes.count
    changes.notify()
    with trio.fail_after(1):
        assert await changes.wait_beyond(seen) == 1


async def test_waiters_are_woken_by_a_change() -> None:
    """Everybody who waits learns of it."""
    changes, woken = Changes(), []

    async def wait() -> None:
        woken.append(await changes.wait_beyond(0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        changes.notify()
    assert woken == [1, 1]


async def test_killed_program_is_started_again(tmp_path: Path) -> None:
    """Another process takes its place, and stopping ends that one for good."""
    program, changes = supervised(tmp_path, LASTING)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program.run)
            seen = await changes.wait_beyond(0)
            first = program.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            while program.pid in {first, None}:
                seen = await changes.wait_beyond(seen)
            assert program.starts == 2
            assert program.pid is not None
            await program.stop()
    assert program.pid is None
    assert traces.processes(RUN) == []


async def test_program_that_keeps_dying_can_be_stopped(tmp_path: Path) -> None:
    """It is started several times, waits longer and longer, and stops while it waits."""
    program, changes = supervised(tmp_path, SHORT)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program.run)
            seen = 0
            while program.starts < 4 or program.pid is not None:
                seen = await changes.wait_beyond(seen)
            await program.stop()
    assert "January 2026" in "\n".join(tail(tmp_path / "log"))


async def test_cancelling_does_not_end_a_program(tmp_path: Path) -> None:
    """Only `stop` does: what runs is needed for taking away what was published."""
    program, changes = supervised(tmp_path, LASTING)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program.run)
            await changes.wait_beyond(0)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                running = program.pid
                try:
                    # While a process calls exec its environment is not there to be read.
                    found: list[int] = []
                    with trio.move_on_after(10):
                        while (found := traces.processes(RUN)) != [running]:  # noqa: ASYNC110 - a process
                            await trio.sleep(0.01)
                finally:
                    await program.stop()
    assert found == [running]


async def test_stopped_program_can_be_resumed_and_ended(tmp_path: Path) -> None:
    """SIGSTOP does not keep a program from ending in time."""
    program, changes = supervised(tmp_path, LASTING)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program.run)
            await changes.wait_beyond(0)
            assert program.pid is not None
            os.kill(program.pid, signal.SIGSTOP)
            program.resume()
            await program.stop()
    assert program.starts == 1


def test_orphans_of_a_run_are_found_and_ended() -> None:
    """The marker finds what a program has started and left behind, and nothing of another run."""
    script = "sleep 60 >/dev/null 2>&1 & echo $!"
    done = subprocess.run(
        ["sh", "-c", script],
        env={**os.environ, traces.MARKER: RUN},
        capture_output=True,
        text=True,
        check=True,
    )
    orphan = int(done.stdout)
    assert traces.end_processes(f"another-{RUN}") == []
    assert traces.processes(RUN) == [orphan]
    assert traces.end_processes(RUN) == []
    assert not Path(f"/proc/{orphan}/cwd").exists()


async def test_look_returns_what_a_child_printed() -> None:
    """Code, output and errors come back."""
    sight = await peek.look(["sh", "-c", "echo seen; echo wrong >&2; exit 3"])
    assert (sight.code, sight.output, sight.errors) == (3, b"seen\n", "wrong\n")


async def test_look_does_not_wait_for_ever() -> None:
    """A child that does not answer in time is killed, and there is no code."""
    with trio.fail_after(5):
        assert (await peek.look(["sleep", "60"], deadline=0.05)).code is None


async def test_content_of_a_missing_file_is_none(tmp_path: Path) -> None:
    """What cannot be read has no content; what is empty has an empty one."""
    (tmp_path / "empty").touch()
    assert await peek.content(str(tmp_path / "empty")) == b""
    assert await peek.content(str(tmp_path / "missing")) is None

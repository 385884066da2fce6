"""The tree on a tmpfs against a model: after any rotations it is the newest content, exactly.

Writers are killed anywhere; whoever walks ``..data`` sees one generation, whole, at any time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from typing_extensions import override

from fakes.trees import TREES
from fusefs import atomicwriter
from fusefs.snapshot import FileSpec, Snapshot, seal

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(300)  # shrinking a failure takes its time

Content = dict[str, tuple[bytes, int]]
# Every call by which the writer changes a directory or a file.
STEPS: Final = (
    (os, ("open", "chown", "lchown", "fchown", "fchmod", "utime", "rename", "rmdir", "unlink")),
    (tempfile, ("mkdtemp",)),
    (Path, ("mkdir", "chmod", "rename", "rmdir", "unlink", "symlink_to")),
)
MODES: Final = st.sampled_from([0o644, 0o400, 0o600])


class Killed(BaseException):
    """Ends a writer as a signal does: nothing is tidied up."""


def counted(step: Callable[..., object], left: list[int]) -> Callable[..., object]:
    """Return `step`, which kills its caller when none is left."""

    def run(*arguments: object, **options: object) -> object:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return step(*arguments, **options)

    return run


def tree(directory: Path) -> Content:
    """Return every file below a directory with its content and mode."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in directory.rglob("*")
        if path.is_file()
    }


class TmpfsTree(RuleBasedStateMachine):
    """One volume, written again and again."""

    @initialize(files=TREES)
    def publish(self, files: dict[str, bytes]) -> None:
        """Begin with one generation."""
        self.root = Path(tempfile.mkdtemp())
        self.newest: Snapshot | None = None
        self.allowed: list[Content] = []
        self.exact = False
        self.rotate(files, 0o644)

    def seal(self, files: dict[str, bytes], mode: int) -> Content:
        """Seal the next generation; return what it must look like."""
        uid, gid = os.getuid(), os.getgid()
        made = seal(
            [
                FileSpec(path=path, content=content, mode=mode, uid=uid, gid=gid)
                for path, content in files.items()
            ],
            previous=self.newest,
            now_ns=1,
        )
        if self.newest:
            self.newest.close()
        self.newest = made.snapshot
        return {path: (content, mode) for path, content in files.items()}

    def write(self, steps: int | None = None) -> None:
        """Write the newest generation, as far as a writer gets with `steps`."""
        assert self.newest is not None
        left = [-1 if steps is None else steps]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "chown", lambda *_: None)  # only root gives away
            patched.setattr(os, "lchown", lambda *_: None)
            for owner, names in STEPS:
                for name in names:
                    patched.setattr(owner, name, counted(getattr(owner, name), left))
            atomicwriter.write(self.newest, self.root)

    @rule(files=TREES, mode=MODES)
    def rotate(self, files: dict[str, bytes], mode: int) -> None:
        """Bring in a generation."""
        content = self.seal(files, mode)
        self.write()
        self.allowed, self.exact = [content], True

    @rule(files=TREES, mode=MODES, steps=st.integers(0, 40))
    def rotate_and_be_killed(self, files: dict[str, bytes], mode: int, steps: int) -> None:
        """Bring in a generation with a writer that may be killed on its way."""
        content = self.seal(files, mode)
        self.allowed, self.exact = [*self.allowed, content], False
        try:
            self.write(steps)
        except Killed:
            return
        self.allowed, self.exact = [content], True

    @rule(name=st.sampled_from(["a", "b"]))
    def clutter(self, name: str) -> None:
        """Put a directory where a link of the volume may be, or will be."""
        path = self.root / name
        if path.is_symlink():
            path.unlink()
        (path / "below").mkdir(parents=True, exist_ok=True)
        self.exact = False

    @invariant()
    def one_generation_is_seen(self) -> None:
        """A walk of ``..data`` finds one generation that was handed in, whole."""
        assert tree(self.root / "..data/") in self.allowed

    @invariant()
    def tree_is_the_model(self) -> None:
        """After a rotation the top level is the layout of the newest content and nothing else."""
        if not self.exact:
            return
        [content] = self.allowed
        shown = str((self.root / "..data").readlink())
        top = {path.partition("/")[0] for path in content}
        assert {"..data", shown} | top == {path.name for path in self.root.iterdir()} - self.dirt()
        for name in top:
            assert str((self.root / name).readlink()) == f"..data/{name}"

    def dirt(self) -> set[str]:
        """Return the clutter, which only a name of the volume takes the place of."""
        return {
            path.name for path in self.root.iterdir() if path.is_dir() and not path.is_symlink()
        } - {str((self.root / "..data").readlink())}

    @override
    def teardown(self) -> None:
        if self.newest:
            self.newest.close()
        shutil.rmtree(self.root)


TestTmpfsTree = TmpfsTree.TestCase

"""Contents of volumes: strategies that reach every kind of change, and short cuts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from fusefs.snapshot import FileSpec, Sealed, Snapshot, seal

if TYPE_CHECKING:
    from fusefs.plan import Step

Files = Mapping[str, bytes]
Kinds = Mapping[str, bool]

SECOND_NS: Final = 1_000_000_000

# Few names, so that one path often is a file now and a directory next.
_NAMES: Final = st.sampled_from(["a", "b", "cé"])
PATHS: Final = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
CONTENTS: Final = st.binary(max_size=4)


def without_conflicts(files: Files) -> dict[str, bytes]:
    """Return `files` without those that stand where an earlier one needs a directory."""
    kept: dict[str, bytes] = {}
    for path, content in files.items():
        if not any(path.startswith(one + "/") or one.startswith(path + "/") for one in kept):
            kept[path] = content
    return kept


TREES: Final = st.dictionaries(PATHS, CONTENTS, max_size=5).map(without_conflicts)


def kinds(files: Files) -> dict[str, bool]:
    """Return every path of the tree that `files` make, and whether it is a directory."""
    found = dict.fromkeys(files, False)
    for path in files:
        elements = path.split("/")
        found.update(("/".join(elements[:depth]), True) for depth in range(1, len(elements)))
    return found


def specs(files: Files, *, gid: int = 0) -> list[FileSpec]:
    """Return what to seal for `files`."""
    return [FileSpec(path=path, content=content, gid=gid) for path, content in files.items()]


@contextlib.contextmanager
def sealed(
    files: Files | Sequence[FileSpec], previous: Snapshot | None = None, *, now_ns: int = SECOND_NS
) -> Iterator[Sealed]:
    """Seal `files` after `previous`, and close the snapshot in the end."""
    content = specs(files) if isinstance(files, Mapping) else files
    made = seal(content, previous=previous, now_ns=now_ns)
    try:
        yield made
    finally:
        made.snapshot.close()


def apply_step(tree: dict[str, bool], step: Step) -> None:
    """Change `tree` as the kernel would, or raise `AssertionError` where the kernel refuses."""
    parent = step.path.rpartition("/")[0]
    assert not parent or tree.get(parent) is True, f"{step}: no directory to hold it"
    match step.kind:
        case "mkdir" | "create":
            assert step.path not in tree, f"{step}: the name is taken"
            tree[step.path] = step.kind == "mkdir"
        case "unlink":
            assert tree.get(step.path) is False, f"{step}: not a file"
            del tree[step.path]
        case "rmdir":
            assert tree.get(step.path) is True, f"{step}: not a directory"
            inside = [path for path in tree if path.startswith(step.path + "/")]
            assert not inside, f"{step}: not empty"
            del tree[step.path]

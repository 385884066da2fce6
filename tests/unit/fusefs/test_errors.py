"""The tree of errors: drawn as it is, and what each one says."""

from __future__ import annotations

import re

from fusefs import errors


def drawn() -> dict[str, str]:
    """Return each class of the drawing in the module's docstring with its parent."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = [(-1, "Exception")]
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}([|+\- ]*)([A-Z]\w+)", line)
        if not found:
            continue
        depth = len(found[1])
        while above[-1][0] >= depth:
            above.pop()
        parents[found[2]] = above[-1][1]
        above.append((depth, found[2]))
    return parents


def test_drawing_of_the_errors_is_true() -> None:
    """Every class is drawn, below the class it is derived from."""
    classes = {
        name: kind.__base__.__name__
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__base__
    }
    assert drawn() == classes


def test_invalid_tree_names_path_and_problem() -> None:
    """The path is quoted, so that odd characters show."""
    error = errors.InvalidTree("a\nb", "must be clean")
    assert str(error) == r"invalid file path 'a\nb': must be clean"
    assert (error.path, error.problem) == ("a\nb", "must be clean")


def test_refused_target_says_whose_fault_it_is() -> None:
    """A layout that is wrong is the caller's, anything else is the node's."""
    assert errors.TargetRefused("x").layout is False
    assert errors.TargetRefused("x", layout=True).layout is True

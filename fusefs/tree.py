"""Which paths a volume may hold, and how a list of files becomes a tree.

Pure functions. The rules are those of the reference driver's AtomicWriter: a
relative, clean path, no ``..`` element, no first element that starts with ``..`` (reserved for
``..data`` and the generation directories), at most 4096 characters, at most 255 bytes an element.
"""

from collections.abc import Iterable, Sequence

from fusefs.errors import InvalidTree

MAX_PATH_BYTES = 4095  # PATH_MAX without its NUL; the reference driver counts characters
MAX_NAME_BYTES = 255  # NAME_MAX of the kernel


def check_path(path: str) -> None:
    """Raise `InvalidTree` unless `path` may be the path of a file in a volume."""
    if not path:
        raise InvalidTree(path, "must not be empty")
    if path.startswith("/"):
        raise InvalidTree(path, "must be relative")
    if "\0" in path:
        raise InvalidTree(path, "must not contain NUL")
    if len(path.encode(errors="replace")) > MAX_PATH_BYTES:
        raise InvalidTree(path[:64] + "…", f"must have at most {MAX_PATH_BYTES} bytes")
    elements = path.split("/")
    if elements[0].startswith(".."):
        raise InvalidTree(path, "must not start with '..', which is reserved")
    for element in elements:
        _check_element(path, element)


def _check_element(path: str, element: str) -> None:
    if element == "..":
        raise InvalidTree(path, "must not contain '..'")
    if element in ("", "."):
        raise InvalidTree(path, "must be clean: no empty element, no '.', no trailing slash")
    try:
        encoded = element.encode()
    except UnicodeEncodeError:
        raise InvalidTree(ascii(path), "must be valid UTF-8") from None
    if len(encoded) > MAX_NAME_BYTES:
        raise InvalidTree(path[:64] + "…", f"each element must have at most {MAX_NAME_BYTES} bytes")


def check_tree(paths: Sequence[str]) -> None:
    """Raise `InvalidTree` unless `paths` are distinct and none is a directory of another."""
    seen: set[str] = set()
    for path in paths:
        check_path(path)
        if path in seen:
            raise InvalidTree(path, "two objects have this file name; give one an objectAlias")
        seen.add(path)
    for path in paths:
        for parent in parents(path):
            if parent in seen:
                raise InvalidTree(parent, f"is a file, but {path!r} needs a directory of this name")


def parents(path: str) -> list[str]:
    """Return the directories above `path`, outermost first, without the root."""
    elements = path.split("/")
    return ["/".join(elements[:depth]) for depth in range(1, len(elements))]


def directories(paths: Iterable[str]) -> list[str]:
    """Return every directory that `paths` need, each parent before its children."""
    needed = {parent for path in paths for parent in parents(path)}
    return sorted(needed, key=lambda path: (path.count("/"), path))

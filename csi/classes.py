"""Where SecretProviderClasses come from: a protocol, and a directory of YAML files.

The Kubernetes API is another source: `csi.classwatch`.

The directory runs the whole driver without Kubernetes. Each look-up compares what is in the
directory with what was read and reads again what changed, so an edited file takes effect at the
next refresh. A file that cannot be parsed keeps what it last said: an editor caught half way must
not take a class from running pods. Files are best replaced by rename.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
import msgspec
import trio
import yaml
from typing_extensions import override

from csi import logkeys
from csi.errors import ClassesUnavailable, ClassNotFound, ClassUnusable

log = logging.getLogger(__name__)

_KIND: Final = "SecretProviderClass"
_GROUP: Final = "secrets-store.csi.x-k8s.io/"  # v1, and v1alpha1, which has the same fields
_SUFFIXES: Final = (".yaml", ".yml", ".json")  # JSON is YAML

_Key = tuple[str, str]
_Signature = tuple[int, int, int, int]


@attrs.frozen(kw_only=True)
class ProviderClass:
    """A SecretProviderClass, as far as the node server needs it."""

    namespace: str
    name: str
    provider: str
    parameters: Mapping[str, str]


class ClassSource(Protocol):
    """Looks classes up; each look-up gives the newest state that the source knows."""

    async def get(self, namespace: str, name: str) -> ProviderClass:
        """Return a class.

        Raises:
            ClassNotFound: There is no such class.
            ClassUnusable: A field of it has the wrong type.
            ClassesUnavailable: The source cannot be read.
        """
        ...


class _Metadata(msgspec.Struct):
    name: str
    namespace: str = "default"


class _Spec(msgspec.Struct):
    provider: str | None = None
    parameters: dict[str, str] | None = None


class _Head(msgspec.Struct, rename="camel"):
    """What tells whose document it is; read first, so that a bad class is known by name."""

    api_version: str = ""
    kind: str = ""
    metadata: _Metadata | None = None


class _Document(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)


@attrs.frozen(kw_only=True)
class _File:
    """What one file said when it was last read: classes, or why a class cannot be used."""

    signature: _Signature
    classes: Mapping[_Key, ProviderClass | ClassUnusable]


class ClassDirectory(ClassSource):
    """Classes from the YAML files of one directory; a file may hold several, for any namespace."""

    def __init__(self, directory: Path) -> None:
        """Read nothing yet."""
        self._directory = directory
        self._files: dict[str, _File] = {}
        self._reading = trio.Lock()

    @override
    async def get(self, namespace: str, name: str) -> ProviderClass:
        """See `ClassSource.get`."""
        async with self._reading:
            await trio.to_thread.run_sync(self._reread)
            found = self._find((namespace, name))
        if isinstance(found, ClassUnusable):
            raise found.with_traceback(None)  # kept and raised again; its trace would grow
        return found

    def _find(self, key: _Key) -> ProviderClass | ClassUnusable:
        """Look in the files in the order of their names: the first that has a class wins."""
        for _, file in sorted(self._files.items()):
            if key in file.classes:
                return file.classes[key]
        raise ClassNotFound(*key)

    def _reread(self) -> None:
        try:
            signatures = dict(_signatures(self._directory))
        except OSError as error:
            message = f"cannot read the classes: --class-dir: {error.strerror}"
            raise ClassesUnavailable(message) from error
        for gone in self._files.keys() - signatures.keys():
            del self._files[gone]
        for file, signature in signatures.items():
            before = self._files.get(file)
            if before is None or before.signature != signature:
                classes = _read(self._directory / file, before.classes if before else {})
                self._files[file] = _File(signature=signature, classes=classes)


def _signatures(directory: Path) -> Iterator[tuple[str, _Signature]]:
    """Yield the files with what changes when their content does; links count as their target."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.endswith(_SUFFIXES):
                try:
                    stat = entry.stat()
                except FileNotFoundError:
                    continue  # renamed or removed since it was listed
                yield (
                    entry.name,
                    (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns),
                )


def _read(
    path: Path, before: Mapping[_Key, ProviderClass | ClassUnusable]
) -> Mapping[_Key, ProviderClass | ClassUnusable]:
    """Return the classes in a file, or those it held `before` when it cannot be parsed."""
    classes: dict[_Key, ProviderClass | ClassUnusable] = {}
    try:
        with path.open(encoding="utf-8") as stream:
            for document in yaml.load_all(stream, yaml.CSafeLoader):
                classes.update(_parse(document))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError) as error:
        log.error(  # noqa: TRY400 - a bad file is the operator's; the traceback is ours
            "cannot read a class file; its last good content stays in use",
            extra={logkeys.FILE: path.name, logkeys.ERROR: str(error)},
        )
        return before
    return classes


def _parse(document: Any) -> dict[_Key, ProviderClass | ClassUnusable]:  # noqa: ANN401 - any YAML
    head = msgspec.convert(document or {}, _Head)
    if head.kind != _KIND or not head.api_version.startswith(_GROUP) or head.metadata is None:
        return {}
    namespace, name = head.metadata.namespace, head.metadata.name
    return {(namespace, name): class_of(namespace, name, document)}


def class_of(
    namespace: str,
    name: str,
    document: Any,  # noqa: ANN401 - parsed YAML or JSON
) -> ProviderClass | ClassUnusable:
    """Return the class in a document, or why it cannot be used."""
    try:
        spec = msgspec.convert(document, _Document).spec
    except msgspec.ValidationError as error:
        return ClassUnusable(
            namespace,
            name,
            problem="wrong type",
            field="spec",
            remedy=f"{error}; put numbers and booleans in quotes",
        )
    return ProviderClass(
        namespace=namespace,
        name=name,
        provider=spec.provider or "",
        parameters=spec.parameters or {},
    )

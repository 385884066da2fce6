"""From a provider's reply to the files of a volume. Pure; whether paths form a tree fusefs says.

The protocol does not link a file to its object. The links here are used for extended attributes and
logs, so a missing one is better than a wrong one:

* as many versions as files: they are in the same order (our provider, and the ones that walk their
  object list once);
* one version: every file comes from that object;
* else an object is linked to the one file of its name, where both the name and the file are unique;
* everything else stays without object and version.
"""

from collections import Counter

from csi.records import MountReply, ObjectVersion, ReturnedFile
from fusefs.snapshot import FileSpec

_NONE = ObjectVersion("", "")
_PERMISSION_BITS = 0o777


def file_specs(reply: MountReply, *, group: int | None) -> list[FileSpec]:
    """Return the files that a volume shall show; they belong to root and to `group`.

    Modes stay as the provider asked for, so that an unreadable file stays unreadable for the group.
    """
    return [
        FileSpec(
            path=file.path,
            content=file.content,
            mode=file.mode & _PERMISSION_BITS,
            gid=group or 0,
            object_id=version.id,
            object_version=version.version,
        )
        for file, version in zip(
            reply.files, _versions_of(reply.files, reply.versions), strict=True
        )
    ]


def _versions_of(
    files: tuple[ReturnedFile, ...], versions: tuple[ObjectVersion, ...]
) -> tuple[ObjectVersion, ...]:
    if len(versions) == len(files):
        return versions
    if len(versions) == 1:
        return versions * len(files)
    files_of_name = Counter(_last(file.path) for file in files)
    objects_of_name = Counter(_last(version.id) for version in versions)
    unique = {
        name: version
        for version in versions
        if (name := _last(version.id)) and objects_of_name[name] == files_of_name[name] == 1
    }
    return tuple(unique.get(_last(file.path), _NONE) for file in files)


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]

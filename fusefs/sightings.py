"""Who still sees a file system that was taken off its target.

A container keeps the mounts that it was started with: when a dead or frozen volume is mounted anew
at its target, the container goes on seeing the old one until it is restarted.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fusefs import mountinfo
from fusefs.mountinfo import Mount

_POD: Final = re.compile(r"/pods/[^/]+/")
_CONTAINER: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def containers_seeing(gone: Mount, proc: Path = Path("/proc")) -> list[str]:
    """Return who has another mount of the file system of `gone`, sorted.

    A container is named by its id, another process as "process PID (NAME)". What looks at the same
    mounts is named once. Only tables are read: no mount is touched.
    """
    processes = _one_of_each_namespace(proc)
    return sorted({_name(process) for process in processes if _sees(process, gone)})


def _one_of_each_namespace(proc: Path) -> Iterator[Path]:
    seen = set[str]()
    for process in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):  # it has ended, or is a thread of the kernel
            namespace = str((process / "ns/mnt").readlink())
            if namespace not in seen:
                seen.add(namespace)
                yield process


def _sees(process: Path, gone: Mount) -> bool:
    try:
        table = (process / "mountinfo").read_bytes().decode(errors="surrogateescape")
    except OSError:  # it has ended
        return False
    # The number alone is given anew once nobody has the file system any more.
    wanted = (gone.device, gone.filesystem, gone.source)
    found = [
        mount.target
        for mount in mountinfo.parse(table.split("\n"))
        if (mount.device, mount.filesystem, mount.source) == wanted
    ]
    # Below kubelet's directory of the pod it is what a container's subPath was bound from: who has
    # that is the host, or looks after it.
    pod = _POD.search(gone.target)
    return any(pod is None or pod[0] not in target for target in found)


def _name(process: Path) -> str:
    name = "?"
    with contextlib.suppress(OSError):
        found = _CONTAINER.findall((process / "cgroup").read_text(encoding="ascii"))
        if found:
            return str(found[-1])
        name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return f"process {process.name} ({name})"

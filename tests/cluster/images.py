"""Building images without a daemon and without a registry.

What a Dockerfile starts from is looked up in a storage of buildah's in the cache folder. The one
base in there is the Debian of `roots`, under the name that the project's Dockerfiles use, so the
same files build with docker where there is a registry.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster import cache, roots
from cluster.addresses import DRIVER_IMAGE, NEXT_DRIVER_IMAGE, PAUSE_IMAGE, READER_IMAGE
from cluster.commands import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BASE: Final = f"docker.io/library/debian:{roots.SUITE}-slim"
SOURCES: Final = Path(__file__).parent / "images"
PROJECT: Final = Path(__file__).parents[2]
STATIC_C: Final = ("gcc", "-O2", "-Wall", "-static", "-s", "-o")
# The machine's certificate authorities may be others than Debian's; an overlay (O), so that a step
# may install into the folder without the machine noticing.
CERTIFICATES: Final = "/etc/ssl/certs"
MOST_STEPS: Final = 200  # of about ten builds; they take three gigabytes
# What deploy/Dockerfile copies, and itself.
COPIED: Final = (
    *("LICENSE", "README.md", "THIRD_PARTY_NOTICES.md", "csi", "deploy/Dockerfile", "fusefs"),
    *("provider", "pyproject.toml", "requirements"),
)
VERSION_LABEL: Final = "org.opencontainers.image.version"
MOST_DRIVERS: Final = 4  # each takes 0.4 gigabytes
_ARCHIVE: Final = "image.tar"


def build(
    context: Path,
    *,
    tag: str,
    archive: Path,
    dockerfile: Path | None = None,
    arguments: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Path:
    """Build an image and write it to a file that `Cluster.import_image` takes; return the file.

    Steps that were done before are taken from the storage.

    Args:
        context: The folder that the Dockerfile copies from.
        tag: The image's name.
        archive: The file; it is replaced.
        dockerfile: Instead of the one in the context.
        arguments: Build arguments. Of one that stands in a label only, buildah does not notice
            that it has changed.
        labels: In place of the Dockerfile's, or beside them.

    Raises:
        CommandFailed: As buildah says.
    """
    with cache.locked("images"):
        _tidy_storage()
        _make_base()
        _bud(context, tag, dockerfile=dockerfile, arguments=arguments, labels=labels)
        archive.unlink(missing_ok=True)
        _buildah("push", "--quiet", tag, f"docker-archive:{archive}:{tag}")
    return archive


def pause() -> Path:
    """Return the archive of the image that every pod needs, after building it the first time."""

    def compile_to(context: Path) -> None:
        run([*STATIC_C, str(context / "pause"), str(SOURCES / "pause" / "pause.c")])

    return _kept("pause", PAUSE_IMAGE, compile_to)


def reader() -> Path:
    """Return the archive of the image with the readers, after building it the first time."""

    def compile_to(context: Path) -> None:
        sources = SOURCES / "reader"
        run([*STATIC_C, str(context / "reader-c"), str(sources / "reader.c")])
        run(
            ["go", "build", "-o", str(context / "reader-go"), str(sources / "reader.go")],
            environment={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": ""},
        )
        for name in ("reader.py", "reader.sh"):
            shutil.copy(sources / name, context)

    return _kept("reader", READER_IMAGE, compile_to)


@functools.cache  # a run has one, whatever is edited meanwhile
def driver(tag: str = DRIVER_IMAGE, *, version: str = "0.1.0") -> Path:
    """Return the archive of the project's own image, after building it from the working tree.

    That takes minutes the first time, half a minute when the code has changed, else nothing.

    Args:
        tag: Its name.
        version: In a label; images of another version have another digest.
    """
    wanted = {"PIP_CERT": f"{CERTIFICATES}/ca-certificates.crt"}
    if "PIP_INDEX_URL" in os.environ:
        wanted["PIP_INDEX_URL"] = os.environ["PIP_INDEX_URL"]

    def make(target: Path) -> None:
        cache.say(f"building the image {tag}")
        build(
            PROJECT,
            tag=tag,
            archive=target / _ARCHIVE,
            dockerfile=PROJECT / "deploy" / "Dockerfile",
            arguments=wanted,
            labels={VERSION_LABEL: version},
        )

    sources = [f"{path.relative_to(PROJECT)}\0".encode() + path.read_bytes() for path in _copied()]
    entry = f"driver-{cache.digest(BASE, tag, VERSION_LABEL, version, *sources)}"
    return cache.kept(entry, make, most=MOST_DRIVERS) / _ARCHIVE


def next_driver() -> Path:
    """Return the archive of the image of the next release: the same code, another digest."""
    return driver(NEXT_DRIVER_IMAGE, version="0.1.1")


def _copied() -> list[Path]:
    """Return the files that the project's own image is made from."""
    files = (path for name in COPIED for path in [PROJECT / name, *(PROJECT / name).rglob("*")])
    return sorted(path for path in files if path.is_file() and path.parent.name != "__pycache__")


def _kept(name: str, tag: str, compile_to: Callable[[Path], None]) -> Path:
    """Return the archive of an image of ours, which is made once for each state of its sources."""

    def make(target: Path) -> None:
        cache.say(f"building the {name} image")
        with tempfile.TemporaryDirectory() as context:
            compile_to(Path(context))
            build(
                Path(context),
                tag=tag,
                archive=target / _ARCHIVE,
                dockerfile=SOURCES / name / "Dockerfile",
            )

    sources = [path.read_bytes() for path in sorted((SOURCES / name).iterdir())]
    return cache.kept(f"{name}-{cache.digest(BASE, tag, *sources)}", make) / _ARCHIVE


def _tidy_storage() -> None:
    """Remove what an interrupted build left, and everything when too many steps have been kept."""
    _buildah("rm", "--all")
    if len(_buildah("images", "--all", "--quiet").splitlines()) > MOST_STEPS:
        shutil.rmtree(_storage_folder())


def _make_base() -> None:
    """Put the base into the storage, unless it is there."""
    if _buildah_finds(BASE):
        return
    root = roots.base()
    cache.say(f"making the image {BASE}")
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        run(["tar", "--numeric-owner", "-C", str(root), "-cf", str(context / "root.tar"), "."])
        (context / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n", encoding="utf-8")
        _bud(context, BASE)


def _bud(
    context: Path,
    tag: str,
    *,
    dockerfile: Path | None = None,
    arguments: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    _buildah(
        "bud",
        "--isolation=chroot",
        "--layers",
        "--pull-never",
        "--quiet",
        f"--volume={CERTIFICATES}:{CERTIFICATES}:O",
        f"--file={dockerfile or context / 'Dockerfile'}",
        f"--tag={tag}",
        *(f"--build-arg={name}={value}" for name, value in (arguments or {}).items()),
        *(f"--label={name}={value}" for name, value in (labels or {}).items()),
        str(context),
    )


def _storage_folder() -> Path:
    """Return the folder of a storage of our own, in place of the machine's."""
    return cache.folder() / f"images-{roots.base().name}"


def _storage() -> tuple[str, ...]:
    folder = _storage_folder()
    return (f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}")


def _buildah(*arguments: str) -> str:
    return run(["buildah", *_storage(), *arguments], apart=True)


def _buildah_finds(image: str) -> bool:
    command = ["buildah", *_storage(), "inspect", "--type=image", image]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0

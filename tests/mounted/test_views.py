"""What a reader of a mounted volume sees, at rest and across rotations."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from fusefs.snapshot import FileSpec
from harness.volumes import bind_file, content, specs

if TYPE_CHECKING:
    from pathlib import Path

    from harness.kubelet import KubeletRoot
    from harness.volumes import PublishedVolume


async def test_files_have_their_exact_bytes(published: PublishedVolume) -> None:
    """Every file reads as it was sealed, on the live path and below ``..data``."""
    for spec in specs(1):
        assert (published.target / spec.path).read_bytes() == spec.content
        assert (published.target / "..data" / spec.path).read_bytes() == spec.content


async def test_listing_shows_live_names_and_data(published: PublishedVolume) -> None:
    """The top level lists the live names, ``..data`` and the generation it points to."""
    assert sorted(os.listdir(published.target)) == ["..1", "..data", "nest", "pass", "user"]
    assert os.readlink(published.target / "..data") == "..1"
    await published.rotate()
    assert sorted(os.listdir(published.target)) == ["..2", "..data", "nest", "pass", "user"]


async def test_open_file_keeps_its_version(published: PublishedVolume) -> None:
    """A file held open across a rotation reads to its end as the version it was opened on."""
    with (published.target / "user").open("rb") as held:
        first = held.read(13)
        await published.rotate()
        await published.rotate()
        assert first + held.read() == content("user", 1)
    assert (published.target / "user").read_bytes() == content("user", 3)


async def test_next_open_reads_the_newest(published: PublishedVolume) -> None:
    """Right after the acknowledgement every path reads the new content with the new size."""
    for _ in range(20):
        generation = await published.rotate()
        for spec in specs(generation):
            path = published.target / spec.path
            assert path.stat().st_size == len(spec.content)
            assert path.read_bytes() == spec.content
            assert (published.target / "..data" / spec.path).read_bytes() == spec.content


async def test_bound_file_follows_rotations(published: PublishedVolume, tmp_path: Path) -> None:
    """A bind of one file, as kubelet makes for a subPath, shows each new version."""
    with bind_file(published.target / "pass", tmp_path / "bound") as bound:
        assert bound.read_bytes() == content("pass", 1)
        await published.rotate()
        assert bound.read_bytes() == content("pass", 2)
        assert bound.stat().st_size == len(content("pass", 2))


async def test_data_directory_is_one_generation(published: PublishedVolume) -> None:
    """A directory descriptor on ``..data`` goes on showing the generation it was opened on."""
    directory = os.open(published.target / "..data", os.O_RDONLY | os.O_DIRECTORY)
    try:
        await published.rotate()
        for name in ("user", "pass"):
            fd = os.open(name, os.O_RDONLY, dir_fd=directory)
            with open(fd, "rb") as file:
                assert file.read() == content(name, 1)
    finally:
        os.close(directory)


async def test_extended_attributes_tell_the_version(published: PublishedVolume) -> None:
    """Object, version and generation of a file can be read as extended attributes."""
    await published.rotate()
    path = published.target / "user"
    assert sorted(os.listxattr(path)) == [
        "user.akv.generation",
        "user.akv.object",
        "user.akv.version",
    ]
    assert os.getxattr(path, "user.akv.object") == b"secret/user"
    assert os.getxattr(path, "user.akv.version") == b"2"
    assert os.getxattr(path, "user.akv.generation") == b"2"
    with pytest.raises(OSError, match="No data available") as missing:
        os.getxattr(path, "user.other")
    assert missing.value.errno == errno.ENODATA


async def test_names_appear_and_go_with_a_rotation(published: PublishedVolume) -> None:
    """Added and removed names, directories too, follow the acknowledged rotation."""
    extra = [FileSpec(path="new/dir/file", content=b"new"), *specs(2, ["user"])]
    await published.rotate(extra)
    assert (published.target / "new/dir/file").read_bytes() == b"new"
    assert not (published.target / "pass").exists()
    assert not (published.target / "nest").exists()
    assert sorted(os.listdir(published.target)) == ["..2", "..data", "new", "user"]
    await published.rotate(specs(3))
    assert not (published.target / "new").exists()
    assert (published.target / "nest/deep/cert").read_bytes() == content("cert", 3)


async def test_file_may_become_a_directory(published: PublishedVolume) -> None:
    """A name may change from file to directory and back."""
    await published.rotate([FileSpec(path="user/name", content=b"x")])
    assert (published.target / "user/name").read_bytes() == b"x"
    await published.rotate([FileSpec(path="user", content=b"y")])
    assert (published.target / "user").read_bytes() == b"y"


async def test_removed_file_stays_readable_where_open(published: PublishedVolume) -> None:
    """An open handle keeps the bytes of a removed object; the path answers ENOENT."""
    with (published.target / "pass").open("rb") as held:
        await published.rotate(specs(2, ["user"]))
        assert held.read() == content("pass", 1)
    with pytest.raises(FileNotFoundError):
        (published.target / "pass").read_bytes()


async def test_bound_file_follows_a_return(published: PublishedVolume, tmp_path: Path) -> None:
    """A bound file whose object was removed shows the new content once it is back."""
    with bind_file(published.target / "pass", tmp_path / "bound") as bound:
        await published.rotate(specs(2, ["user"]))
        await published.rotate(specs(3))
        assert bound.read_bytes() == content("pass", 3)


async def test_find_descends_everywhere(published: PublishedVolume) -> None:
    """Directory link counts are right: `find` prunes by them and must miss nothing."""
    found = subprocess.run(
        ["find", ".", "-type", "f"],
        cwd=published.target,
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    ).stdout.split()
    assert sorted(found) == sorted(
        [f"./{spec.path}" for spec in specs(1)] + [f"./..1/{spec.path}" for spec in specs(1)]
    )


async def test_statfs_tells_real_sizes(published: PublishedVolume) -> None:
    """The file system is as large as its content and full, never of zero blocks."""
    found = os.statvfs(published.target)
    total = sum(len(spec.content) for spec in specs(1))
    assert found.f_blocks == -(-total // found.f_frsize)
    assert found.f_files == 3
    assert (found.f_bfree, found.f_namemax) == (0, 255)


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(lambda top: (top / "user").write_bytes(b"x"), id="write"),
        pytest.param(lambda top: (top / "x").touch(), id="create"),
        pytest.param(lambda top: (top / "user").unlink(), id="unlink"),
        pytest.param(lambda top: (top / "user").chmod(0o600), id="chmod"),
        pytest.param(lambda top: (top / "x").mkdir(), id="mkdir"),
        pytest.param(lambda top: (top / "user").rename(top / "x"), id="rename"),
        pytest.param(lambda top: (top / "x").symlink_to("y"), id="symlink"),
        pytest.param(lambda top: os.setxattr(top / "user", "user.x", b"y"), id="setxattr"),
        pytest.param(lambda top: os.utime(top / "user"), id="utime"),
    ],
)
async def test_changes_are_refused(published: PublishedVolume, attempt: object) -> None:
    """Whatever would change the volume fails with EROFS."""
    assert callable(attempt)
    with pytest.raises(OSError, match="Read-only file system") as refused:
        attempt(published.target)
    assert refused.value.errno == errno.EROFS


async def test_target_is_read_only_on_the_host(
    published: PublishedVolume, kubelet: KubeletRoot
) -> None:
    """The host's mountinfo has one read-only, nosuid, nodev mount, and nothing private."""
    (mount,) = kubelet.mounts()
    assert mount.target == str(published.target)
    assert {"ro", "nosuid", "nodev"} <= mount.options
    assert (mount.filesystem, mount.source) == ("fuse.akvfs", "akvfs")


async def test_shared_mapping_of_a_live_file_is_refused(published: PublishedVolume) -> None:
    """A shared mapping would mix generations on a live file; below ``..data`` it is right."""
    with (published.target / "user").open("rb") as live:
        with pytest.raises(OSError, match="No such device") as refused:
            mmap.mmap(live.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
        assert refused.value.errno == errno.ENODEV
    with (
        (published.target / "..data/user").open("rb") as pinned,
        mmap.mmap(pinned.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapping,
    ):
        assert mapping[:] == content("user", 1)
